"""The comparison of scales on the small archive, with untrained models and heads of two steps."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from sak import config
from sak.research.scales import compare, report
from sak.research.scales.compare import Comparison
from sak.research.scales.views import View, gflop, views

ROOT = Path(__file__).parents[2]
MODEL = """
    {name}:
      family: timm
      model: vit_tiny_patch16_384
      weights: random
      levels: [1, 3]
      options: {{img_size: 96, patch_size: 16, embed_dim: {width}, depth: 4, num_heads: 2}}"""
PROBE = "probe:\n  extra:" + "".join(
    MODEL.format(name=name, width=width) for name, width in {"small": 8, "large": 16, "other": 16}.items()
) + "\n  steps: 2\n  batch_size: 2\n  log_every: 1\n  width: 16\n"  # fmt: skip
VIEWS = ["small", "small 1+2", "small 1+2 whole", "small 1+2 sum", "large", "other"]


@pytest.fixture
def asked(tiny):
    tiny.write_text(tiny.read_text().replace("semseg, human_parts, saliency, normals, edge", "semseg") + PROBE)
    return tiny


def run(file, *overrides, **options):
    options = {"ceiling": "other", "scales": [1, 2], "seeds": [0, 1], "images": 4, **options}
    comparison = Comparison(config.load(file, overrides), "small", "large", **options)
    comparison.finish()
    return json.loads((comparison.path / "scales.json").read_text())


def test_the_whole_comparison_and_that_it_is_not_done_twice(asked, tmp_path, monkeypatch, capsys):
    tool = runpy.run_path(str(ROOT / "tools" / "compare_scales.py"))
    models = [
        "--small",
        "small",
        "--large",
        "large",
        "--ceiling",
        "other",
        "--scales",
        "1,2",
        "--seeds",
        "0,1",
        "--images",
        "4",
    ]
    tool["main"]([str(asked), *models])
    found = json.loads((tmp_path / "runs" / "tiny-scales" / "scales.json").read_text())
    path = tmp_path / "runs" / "tiny-scales"
    assert list(found["gflop"]) == list(found["metrics"]) == VIEWS
    assert all(set(seeds) == {"0", "1"} for seeds in found["metrics"].values())
    assert all(set(tasks) == {"semseg"} for seeds in found["metrics"].values() for tasks in seeds.values())
    assert found["gflop"]["small 1+2"] == pytest.approx(5 * found["gflop"]["small"])
    assert found["gflop"]["small 1+2 whole"] > found["gflop"]["small 1+2"]  # attention over four times the tokens
    assert found["gflop"]["small 1+2 sum"] == found["gflop"]["small 1+2"]
    explained = found["reconstruction"]["explained"]
    assert set(explained) == {*VIEWS} - {"large"}
    assert all(-1 < value < 1 for values in explained.values() for value in values)
    (classes,) = found["classes"]
    iou = np.array(list(classes["iou"]["small"].values()))
    assert iou.shape == (2, len(classes["images"])) == (2, len(classes["ambiguity"]))
    assert min(classes["images"]) > 0
    assert all(0 <= value <= 100 for value in classes["ambiguity"])
    assert all(view in (path / "scales.md").read_text() for view in VIEWS)
    assert (path / "scales.png").stat().st_size > 5000
    assert list((path / "features").iterdir()) == []

    monkeypatch.setattr(Comparison, "_measure", None)  # must not be called
    assert run(asked) == found
    assert "12 of 12 cells are done already" in capsys.readouterr().out


@pytest.mark.slow
def test_a_stopped_comparison_goes_on_with_the_same_numbers_and_cells_of_other_settings_are_refused(
    asked, tmp_path, monkeypatch
):
    straight = run(asked, "name=straight", ceiling=None, seeds=[0])
    measure, cells = compare.probe_cell, []

    def interrupted(*arguments):
        if len(cells) == 3:
            raise KeyboardInterrupt
        cells.append(arguments)
        return measure(*arguments)

    monkeypatch.setattr(compare, "probe_cell", interrupted)
    with pytest.raises(KeyboardInterrupt, match="stopped with 3 of 5 cells done; the same command goes on"):
        run(asked, ceiling=None, seeds=[0])
    monkeypatch.setattr(compare, "probe_cell", measure)
    assert run(asked, ceiling=None, seeds=[0]) == straight

    with pytest.raises(ValueError, match=r"small\.semseg\.0\.json was measured with other settings or weights"):
        run(asked, "probe.steps=3", ceiling=None, seeds=[0])


def test_views():
    names = [view.name for view in views("a", "b", None, [1, 2, 3])]
    assert names == ["a", "a 1+2", "a 1+2+3", "a 1+2 whole", "a 1+2 sum", "b"]
    assert View("a", (1, 2), split=False).key == "a-1-2-whole"


def test_operations_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 8, 4, 4, bias=False), nn.Flatten(), nn.Linear(8 * 2 * 3, 5, bias=False))
    assert gflop(model, 8, 12) == pytest.approx((2 * 6 * 8 * 48 + 2 * 48 * 5) / 1e9)


class Task:
    units = "%"

    def headline(self):
        return "miou", True


def content():
    metrics = {"a": [10.0, 20.0], "a 1+2": [12.0, 22.0], "b": [15.0, 20.0]}
    iou = {"a": [[1.0, 2, 3], [1, 2, 3]], "a 1+2": [[2.0, 2, 7], [4, 2, 7]], "b": [[1.0, 4, 3], [1, 4, 3]]}
    return {
        "small": "a", "large": "b", "ceiling": None, "seeds": [0, 1], "gflop": {"a": 1.0, "a 1+2": 5.0, "b": 4.0},
        "metrics": {v: {s: {"semseg": {"miou": x}} for s, x in enumerate(values)} for v, values in metrics.items()},
        "reconstruction": {"images": 2, "explained": {"a": [0.2, 0.4], "a 1+2": [0.3, 0.5]}},
        "classes": [{"task": "semseg", "classes": ["x", "y", "z"], "images": [5, 1, 9], "ambiguity": None,
                     "iou": {view: dict(enumerate(values)) for view, values in iou.items()}}],
    }  # fmt: skip


def test_the_tables_by_hand():
    tasks, given = {"semseg": Task()}, content()
    assert report.gains(tasks, given)["a 1+2"] == [pytest.approx(20), pytest.approx(10)]
    rows = {row[0]: row[1:] for row in report.metric_rows(tasks, given)}
    assert rows["a 1+2"][:2] == ["5", "1.25 ×"]
    assert rows["a 1+2"][3].startswith("+15.0 ±")
    assert rows["a 1+2"][4].startswith("+3.8 ±")  # over 4 GFLOP more: 5 and 2.5
    assert rows["a"][3:] == ["–", "–", "–"]
    assert report.halves(given["classes"][0]) == {"rare": [1], "frequent": [0, 2]}
    rows = {row[0]: row[1:] for row in report.class_rows(given, given["classes"][0])}
    assert rows["a: IoU"] == ["2.00", "2.00"]
    assert rows["a 1+2"][0] == "+0.00 ± 0.00"
    assert rows["a 1+2"][1].startswith("+3.00 ±")  # (1 + 4) / 2 and (3 + 4) / 2
    assert rows["b"] == ["+2.00 ± 0.00", "+0.00 ± 0.00"]
    given["ceiling"], given["reconstruction"]["explained"]["c"] = "c", [0.4, 0.8]
    assert [row[-1] for row in report.reconstruction_rows(given)][1:] == ["50.0", "62.5", "100.0"]


BAD = {
    "no such model": (["--small", "smal", "--large", "large"], "unknown model .* 'smal'; did you mean small?"),
    "one model twice": (["--small", "small", "--large", "small"], "name different models"),
    "scales that do not begin with 1": (["--small", "small", "--large", "large", "--scales", "2,3"], "must be 1 and"),
    "one scale": (["--small", "small", "--large", "large", "--scales", "1"], "must be 1 and larger ones"),
    "scales that are no numbers": (["--small", "small", "--large", "large", "--scales", "1,x"], "--scales is '1,x'"),
    "a seed twice": (["--small", "small", "--large", "large", "--seeds", "1,1"], "--seeds is '1,1'"),
    "no model": (["--small", "small"], "required: --large"),
    "a model with scales": (
        ["--small", "small", "--large", "large", "probe.extra.small.scales=[1,2]"],
        r"the scales of small are \[1, 2\] already",
    ),
    "other levels": (
        ["--small", "small", "--large", "large", "probe.extra.small.levels=[3]"],
        "different numbers of l",
    ),
    "a whole image of a fixed size": (
        ["--small", "small", "--large", "large", "probe.extra.small.input_size=96"],
        "small brings every image to its own size, so that it cannot see a larger one as a whole",
    ),
    "too few images": (["--small", "small", "--large", "large", "--images", "0"], "--images"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_line_and_exit_code_2(case, asked, tmp_path, monkeypatch, capsys):
    arguments, sentence = BAD[case]
    monkeypatch.setattr(sys, "argv", ["compare_scales.py", str(asked), *arguments])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(ROOT / "tools" / "compare_scales.py"), run_name="__main__")
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert error.count("\n") == 1
    assert re.search(sentence, error), error
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").glob("*-scales"))

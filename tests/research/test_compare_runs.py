"""Runs side by side, against intervals and gains worked out by hand."""

import json
import re
import shutil

import pytest
from PIL import Image

from sak import config

GOOD = {"semseg": {"miou": 20.0}, "normals": {"mean_error": 30.0}}


@pytest.fixture
def runs(trained, tmp_path):
    """Makes a finished run with this config and these metrics."""

    def make(name, seed, metrics, **keys):
        run = shutil.copytree(trained, tmp_path / "runs" / name)
        text = (run / "config.yaml").read_text()
        for key, value in {"seed": seed, "name": name, **keys}.items():
            text, count = re.subn(rf"^( *){key}: .*", rf"\g<1>{key}: {value}", text, count=1, flags=re.MULTILINE)
            assert count == 1
        (run / "config.yaml").write_text(text)
        (run / "metrics.json").write_text(json.dumps(metrics))
        return run

    return make


def scaled(factor):
    return {"semseg": {"miou": 20.0 * factor}, "normals": {"mean_error": 30.0 / factor}}


def test_seeds_are_one_row_with_an_interval(runs, call_tool, tmp_path):
    a = [
        runs(f"plain-seed{seed}", seed, {"semseg": {"miou": miou}}) for seed, miou in ((0, 20.0), (1, 22.0), (2, 24.0))
    ]
    b = [
        runs(f"sum-seed{s}", s, {"semseg": {"miou": m}, "edge": {"ods_f": 1}}, router="sum")
        for s, m in ((0, 22.0), (1, 24.2))
    ]
    code, printed, _ = call_tool("compare_runs", *a, *b)
    assert code == 0
    assert re.search(r"plain +\| retrained +\| +3 \| +22.00 ± 4.97", printed), printed  # 4.303 · 2 / √3
    content = json.loads((tmp_path / "comparison/comparison.json").read_text())
    plain, other = content["rows"]
    assert (plain["variant"], other["variant"], content["baseline"]) == ("plain", "sum", "plain")
    assert content["delta_m_tasks"] == ["semseg"]
    assert other["delta_m"]["values"] == pytest.approx([0, 10])
    assert other["delta_m_paired"]["mean"] == pytest.approx(100 * 2.1 / 22)
    assert content["differences"] == {"`student.router`": {"plain": "mor", "sum": "sum"}}
    assert plain["parameters"] > 1e4
    assert plain["training_seconds"]["mean"] > 0
    assert plain["runs"] == [str(path) for path in a]
    page = (tmp_path / "comparison/comparison.md").read_text()
    assert "| `student.router` | mor   | sum |" in page
    assert Image.open(tmp_path / "comparison/comparison.png").size[0] > 200


def test_a_teacher_that_one_lacks_is_one_difference(runs, call_tool, tmp_path):
    one, two = runs("one", 0, GOOD), runs("two", 0, GOOD)
    content = config.load(two / "config.yaml")
    content.teachers.other = content.teachers.dinov2
    content.student.adapter_ratio = 3
    config.save(content, two / "config.yaml")
    assert call_tool("compare_runs", one, two)[0] == 0
    assert json.loads((tmp_path / "comparison/comparison.json").read_text())["differences"] == {
        "`student.adapter_ratio`": {"one": "4", "two": "3"},
        "`teachers.other`": {"one": "–", "two": "given"},
    }


def test_seeds_of_what_runs_started_from_are_no_difference(runs, call_tool, tmp_path):
    tuned = [runs(f"tuned-{seed}", seed, GOOD, weights=f"runs/two-seed{seed}") for seed in (0, 1, 12)]
    other = [
        runs("other-0", 0, GOOD, weights="runs/b16/student"),  # no seed of its own
        runs("other-1", 1, GOOD, weights="runs/b14/student"),
        runs("other-12", 12, GOOD, weights="runs/two-seed2"),  # of another seed
        runs("other-2", 2, GOOD, weights="runs/b2"),  # a number that is none, though the same
        runs("other-4", 4, GOOD, weights="runs/b4"),
    ]
    code, _, _ = call_tool("compare_runs", *tuned, *other)
    assert code == 0
    rows = json.loads((tmp_path / "comparison/comparison.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == ["tuned", "other-0", "other-1", "other-12", "other-2", "other-4"]
    assert rows[0]["runs"] == [str(path) for path in tuned]


def test_another_baseline_and_fewer_tasks(runs, call_tool, tmp_path):
    one, two = runs("one", 0, scaled(1)), runs("two", 0, {**scaled(2), "edge": {"ods_f": 3.0}}, router="sum")
    shutil.rmtree(one / "events")
    code, printed, _ = call_tool("compare_runs", one, two, "--baseline", two)
    assert code == 0
    assert "One seed" in printed
    first, second = json.loads((tmp_path / "comparison/comparison.json").read_text())["rows"]
    assert first["delta_m"]["mean"] == pytest.approx((-50 - 100) / 2)
    assert first["training_seconds"] is None
    assert set(second["metrics"]) == {"semseg", "normals"}


def test_what_cannot_be_compared(runs, call_tool, tmp_path):
    one, two = runs("one", 0, GOOD), runs("two", 0, GOOD)
    runs("distilled", 1, {})
    runs("unfinished", 1, GOOD)
    (tmp_path / "runs/unfinished/metrics.json").unlink()
    other = runs("other", 1, {"edge": {"ods_f": 3.0}}, router="sum")
    nyud = runs("nyud", 1, GOOD, dataset="nyud")
    (tmp_path / "comparison").mkdir()
    for arguments, message in (
        ((one, two), "are of one config and seed"),
        ((one, tmp_path / "runs/distilled"), "was distilled only"),
        ((one, tmp_path / "runs/unfinished"), "is unfinished"),
        ((one, tmp_path), "is no run"),
        ((one, other), "no task in common"),
        ((one, nyud), "is of nyud, but pascal_context"),
        ((one, "--baseline", "nobody"), "--baseline is 'nobody', but must be one of one"),
        ((one, "--output", one), "is a run or a bundle itself"),
    ):
        code, _, errors = call_tool("compare_runs", *arguments)
        assert (code, len(errors)) == (2, 1)
        assert message in errors[0]
    assert list((tmp_path / "comparison").iterdir()) == []

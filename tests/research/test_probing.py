"""Probing on the small archive, with untrained models and heads of two steps."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from sak import cli, config, tasks
from sak.research.frozen_models import models_to_probe
from sak.research.probing import probe, report
from sak.research.probing.features import Features
from sak.research.probing.head import ProbeHead
from sak.research.probing.probe import Probe
from teachers.fingerprints import weights_hash

ROOT = Path(__file__).parents[2]
PROBE = """
probe:
  extra:
    vit:
      family: dinov2
      model: vit_tiny_patch16_384
      options: {img_size: 96, patch_size: 16, embed_dim: 32, depth: 4, num_heads: 2}
      weights: random
      levels: [0, 1, 2, 3]
  reference: vit
  scales: [1, 2]
  steps: 2
  batch_size: 2
  log_every: 1
  width: 16
"""
ROWS = ("dinov2", "vit", "dinov2-s2", "vit-s2")


@pytest.fixture
def probed(tiny):
    """The tiny experiment with a probe of two tasks."""
    tiny.write_text(tiny.read_text().replace("human_parts, saliency, normals, edge", "normals") + PROBE)
    return tiny


def run(file, *overrides):
    probe = Probe(config.load(file, overrides))
    probe.finish()
    return json.loads((probe.path / "probe.json").read_text())


def test_it_probes_every_model_on_every_task_once(probed, tmp_path, monkeypatch, capsys):
    result = run(probed)
    path = tmp_path / "runs" / "tiny-probe"
    assert list(result["metrics"]) == list(ROWS)
    assert all(set(values) == {"semseg", "normals"} for values in result["metrics"].values())
    assert result["relative"]["vit"]["normals"] == 0
    assert len({values["normals"]["mean_error"] for values in result["metrics"].values()}) == len(ROWS)
    assert set(result["constants"]) == {"semseg", "normals"}
    assert all(name in (path / "probe.md").read_text() for name in ROWS)
    assert (path / "probe.png").stat().st_size > 5000
    assert len(list((path / "events").glob("*/*/events*"))) == 8
    assert list((path / "features").iterdir()) == []
    assert "features of dinov2-s2: 55.3kB" in capsys.readouterr().out

    monkeypatch.setattr(Probe, "_probe_model", None)  # must not be called
    again = run(probed)
    assert again == result
    assert "8 of 8 cells are done already" in capsys.readouterr().out


def test_a_stopped_probe_goes_on_with_the_same_numbers(probed, tmp_path, monkeypatch):
    straight = run(probed, "name=straight")
    finish_cell, cells = probe.probe_cell, []

    def interrupted(config, model, *arguments):
        if len(cells) == 3:
            raise KeyboardInterrupt
        cells.append(model)
        return finish_cell(config, model, *arguments)

    monkeypatch.setattr(probe, "probe_cell", interrupted)
    with pytest.raises(KeyboardInterrupt, match="stopped with 3 of 8 cells done; the same command goes on"):
        run(probed)
    assert [entry.name[:4] for entry in (tmp_path / "runs" / "tiny-probe" / "features").iterdir()] == ["vit-"]
    monkeypatch.setattr(probe, "probe_cell", finish_cell)
    assert run(probed) == straight


class Pooled(nn.Module):
    """Two levels of different grids, and the number of images that it has seen."""

    seen = 0

    def forward(self, images):
        self.seen += len(images)
        return [nn.functional.avg_pool2d(images, size) for size in (4, 8)]


def test_a_stopped_extraction_computes_what_is_missing(tmp_path):
    torch.manual_seed(0)
    images = {"train": list(torch.rand(7, 3, 16, 16)), "val": list(torch.rand(2, 3, 16, 16))}
    accelerator, model = Accelerator(cpu=True), Pooled()
    features = Features(tmp_path / "features", [(3, 4, 4), (3, 2, 2)], {"train": 7, "val": 2})
    assert features.size == 2 * 9 * (48 + 12)

    class Corrupt(list):
        def __getitem__(self, index):
            if index == 5:
                raise RuntimeError("here it stops")
            return super().__getitem__(index)

    samples = {split: [{"image": image} for image in part] for split, part in images.items()}
    with pytest.raises(RuntimeError, match="here it stops"):
        features.extract(model, {**samples, "train": Corrupt(samples["train"])}, 2, 0, accelerator, "pooled")
    assert model.seen == 4
    features.extract(model, samples, 2, 0, accelerator, "pooled")
    assert model.seen == 4 + 3 + 2
    features.extract(model, samples, 2, 0, accelerator, "pooled")
    assert model.seen == 9
    for split, part in images.items():
        for index, image in enumerate(part):
            for found, expected in zip(features.maps(split, index), model(image[None]), strict=True):
                assert found.equal(expected[0].half())

    large = {split: [{"image": 1e6 * image} for image in part] for split, part in images.items()}
    features = Features(tmp_path / "large", features.shapes, features.counts)
    with pytest.raises(FloatingPointError, match="beyond half precision"):
        features.extract(model, large, 2, 0, accelerator, "large")


def test_the_head_takes_any_widths_grids_and_scales():
    head = ProbeHead([6, 10], 16, channels=5).train()
    levels = [torch.randn(4, 6, 6, 4), torch.randn(4, 10, 3, 2)]
    output = head(levels, (48, 32))
    assert output.shape == (4, 5, 48, 32)
    torch.testing.assert_close(head([1000 * level + 7 for level in levels], (48, 32)), output, rtol=1e-2, atol=1e-2)
    assert not torch.allclose(head([levels[0], levels[1].flip(0)], (48, 32)), output, atol=0.1)


def test_relative_is_positive_where_better():
    metrics = {
        "plain": {"semseg": {"miou": 20.0}, "normals": {"mean_error": 30.0}, "edge": {"ods_f": 0.0}},
        "other": {"semseg": {"miou": 25.0}, "normals": {"mean_error": 33.0}, "edge": {"ods_f": 1.0}},
    }
    gains = report.relative(tasks.TASKS, metrics, "plain")
    assert gains["other"]["semseg"] == pytest.approx(25)
    assert gains["other"]["normals"] == pytest.approx(-10)
    assert "edge" not in gains["other"]  # there is no ratio to nothing


def test_s2_variants_are_of_models_with_one_scale(probed):
    specs = models_to_probe(config.load(probed, ["teachers.dinov2.scales=[1,3]"]))
    assert {name: spec.scales for name, spec in specs.items()} == {"dinov2": [1, 3], "vit": [1], "vit-s2": [1, 2]}


def test_an_extra_model_can_be_taken_out(probed):
    settings = config.load(probed, ["probe.extra.vit=null", "probe.reference=null"])
    assert list(models_to_probe(settings)) == ["dinov2", "dinov2-s2"]


def test_the_hash_tells_weights_apart():
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    assert weights_hash(one) != weights_hash(other)
    other.load_state_dict(one.state_dict())
    assert weights_hash(one) == weights_hash(other)


MISTAKES = {
    "unknown task": ["data.tasks=[semseg,surface]", "unknown task 'surface'; known: semseg"],
    "scales that cannot be tiled": ["probe.scales=[2,1]", r"scales \[2, 1\] cannot be tiled"],
    "scale that is no number": ["probe.scales=[1,1.5]", "probe.scales.*1.5"],
    "unknown reference": ["probe.reference=clip", "probe.reference is 'clip', but must be one of dinov2, vit"],
    "name of a teacher": [
        "probe.extra.dinov2={family: sam, model: vit_b}",
        "probe.extra.dinov2 has the name of a teacher",
    ],
    "nothing to take out": [
        "probe.extra.clip=null",
        "there is no extra model clip to take out; the extra models are: vit",
    ],
    "no steps": ["probe.steps=0", "probe.steps is 0, but must be positive"],
    "other settings": ["probe.width=8", r"dinov2.semseg.json was measured with other settings \(probe.width\)"],
    "unknown head": ["probe.head.type=mmseg.Nothing", "mmsegmentation has no head 'Nothing'"],
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(probed, mistake, monkeypatch, capsys, tmp_path):
    override, message = MISTAKES[mistake]
    if mistake == "other settings":
        run(probed, "data.tasks=[semseg]", "probe.scales=null")
    assert fails(probed, override, monkeypatch=monkeypatch, capsys=capsys, match=message)


def test_nothing_to_probe(probed, monkeypatch, capsys):
    text = probed.read_text()
    start, end = text.index("teachers:"), text.index("stages:")
    probed.write_text((text[:start] + text[end:]).split("probe:")[0])
    assert fails(probed, monkeypatch=monkeypatch, capsys=capsys, match="neither teachers nor probe.extra")


def fails(*arguments, monkeypatch, capsys, match, tool="probe_teachers.py"):
    monkeypatch.setattr(sys, "argv", [tool, *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.run(runpy.run_path(str(ROOT / "tools" / tool))["main"])
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert (stop.value.code, len(lines)) == (2, 1), lines
    return re.search(match, lines[0])

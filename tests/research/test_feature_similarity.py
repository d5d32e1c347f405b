"""The comparison of features on the small archive, with untrained models."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from sak import cli, config
from sak.evaluation.sources import Sources
from sak.research.similarity.features import _samples, compare
from sak.student import Student

ROOT = Path(__file__).parents[2]


@pytest.fixture
def student():
    return Student(
        stem="vit_tiny_patch16_384",
        stem_options={"patch_size": 16, "embed_dim": 32, "depth": 4, "num_heads": 2},
        image_size=(96, 96),
        tasks={"semseg": 21},
        teachers={"dinov2": [24] * 4},
        levels=[0, 1, 2, 3],
    ).eval()


def test_every_source_of_the_student_is_compared(student):
    images = torch.rand(2, 3, 96, 96)
    sources = Sources(student)(images)
    assert {name: [tuple(level.shape) for level in levels] for name, levels in sources.items()} == {
        name: [(2, 32, 6, 6)] * 4 for name in ("student stem", "student dinov2")
    }
    aligned = student(images, tasks=()).paths["dinov2"]  # what distillation sees, through a Linear
    for level, aligner, expected in zip(sources["student dinov2"], student.paths["dinov2"].aligners, aligned,
                                        strict=True):  # fmt: skip
        torch.testing.assert_close(aligner(level.movedim(1, -1)).movedim(-1, 1), expected)


def test_a_teacher_is_all_of_itself_and_part_of_its_s2_variant(tiny, tmp_path, student):
    student.save_pretrained(tmp_path / "run" / "student")
    figure = compare(
        config.load(tiny, ["probe.scales=[1,2]", "teachers.dinov2.options.embed_dim=12"]), str(tmp_path / "run")
    )
    assert figure == tmp_path / "runs" / "tiny-similarity" / "similarity.png"
    assert figure.stat().st_size > 5000
    result = json.loads(figure.with_name("similarity.json").read_text())
    assert result["models"] == ["dinov2", "dinov2-s2", "student stem", "student dinov2"]
    assert result["images"] == {"train": 2, "val": 2}
    for level in range(4):
        cka, explained = torch.tensor(result["cka"][level]), torch.tensor(result["reconstruction"][level])
        torch.testing.assert_close(cka.diagonal(), torch.ones(4))
        torch.testing.assert_close(cka, cka.T)
        assert 0 < cka.min() < 0.95
        assert explained.diagonal().min() > 0.99
        assert explained[0, 1] > 0.99  # at scale 1 its channels are the plain teacher's


def test_samples_are_tokens_of_the_coarsest_grid_inside_of_the_image():
    fine = torch.arange(16.0).view(1, 1, 4, 4)
    coarse = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    left, right = _samples([fine, coarse], [torch.tensor([8]), torch.tensor([4])], (8, 4))
    assert right.flatten().tolist() == [0, 1, 2, 3]
    assert left.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    # the image fills the middle half of the canvas' height: of four rows of tokens two
    (inside,) = _samples([fine], [torch.tensor([4]), torch.tensor([8])], (8, 8))
    assert inside.flatten().tolist() == [4, 5, 6, 7, 8, 9, 10, 11]


MISTAKES = {
    "one model": ([], "no two models to compare"),
    "no student": (["--student", "nowhere"], "no student at nowhere"),
    "other number of levels": (
        ["probe.extra.vit={family: dinov2, model: vit_tiny_patch16_384, weights: random, levels: [1, 5]}"],
        "different numbers: dinov2 4, vit 2",
    ),
    "scales that cannot be tiled": (
        ["probe.scales=[0,1]"],
        "probe.scales is [0, 1], but must be a list of different whole numbers",
    ),
    "too few tokens": (["probe.scales=[1,2,3]", "--images", "1"], "too few to fit linear maps of 72 channels"),
    "no images": (["--images", "0"], "--images: '0' is no whole number from 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(tiny, mistake, monkeypatch, capsys):
    arguments, message = MISTAKES[mistake]
    monkeypatch.setattr(sys, "argv", ["compare_features.py", str(tiny), *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.run(runpy.run_path(str(ROOT / "tools" / "compare_features.py"))["main"])
    assert stop.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]

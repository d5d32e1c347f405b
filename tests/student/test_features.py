"""The student as a backbone: features of every source, and the examples that use them."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from sak import Student
from sak.student.features_only import FeaturesOnly

EXAMPLES = Path(__file__).parents[2] / "examples"
OPTIONS = {"embed_dim": 32, "depth": 3, "num_heads": 2, "patch_size": 8}


def build(**options):
    return Student(
        "vit_tiny_patch16_384",
        [32, 48],
        {"semseg": 5, "edge": 1},
        {"a": [16, 16], "b": [32, 32]},
        levels=[0, 2],
        stem_options=OPTIONS,
        **options,
    ).eval()


@pytest.mark.parametrize("router", ["mor", "token", "sum"])
def test_features_are_what_the_heads_and_the_distillation_see(router):
    student, images = build(router=router), torch.rand(2, 3, 24, 40)
    seen = {}
    for task in student.heads:
        student.heads[task].register_forward_pre_hook(lambda _, given, task=task: seen.update({task: given[0]}))
    with torch.no_grad():
        output, tokens = student(images), student.stem((images - student.mean) / student.std)
        for task in ("semseg", "edge"):
            for one, other in zip(student.features(images, task), seen[task], strict=True):
                assert torch.equal(one, other)
        stem = student.features(images)
        assert [level.shape for level in stem] == [(2, 32, 3, 5)] * 2
        for level, block in enumerate(student.levels):
            assert torch.equal(stem[level].flatten(2).transpose(1, 2), tokens[block + 1][:, 1:])
        for level, (own, aligned) in enumerate(zip(student.features(images, "b"), output.paths["b"], strict=True)):
            assert torch.equal(own, aligned), level  # of the stem's width: it has no aligners
        assert [level.shape for level in student.features(images, "a")] == [(2, 32, 3, 5)] * 2  # not the teacher's 16
    with pytest.raises(ValueError, match="unknown source 'sam' of features; known: stem, a, b, semseg, edge"):
        student.features(images, "sam")


def test_as_timm_has_it():
    student, images = build(), torch.rand(1, 3, 32, 48)
    backbone = FeaturesOnly(student, "edge", out_indices=[-1])
    assert backbone.feature_info.channels() == [32]
    assert backbone.feature_info.reduction() == [8]
    assert backbone.feature_info.module_name() == ["edge.block2"]
    (last,) = backbone(images)
    assert last.requires_grad
    backbone.eval()
    assert torch.equal(backbone(images)[0], student.eval().features(images, "edge")[1])
    for options, message in (({"source": "c"}, "unknown source 'c'"), ({"out_indices": [2]}, "out_indices has 2")):
        with pytest.raises(ValueError, match=message):
            FeaturesOnly(student, **options)


def test_a_frozen_backbone_rests():
    student, images = build(), torch.rand(2, 3, 32, 48)
    backbone = torch.nn.Sequential(FeaturesOnly(student, "semseg", frozen=True)).train()
    assert backbone[0].training
    assert not any(part.training for part in student.modules())
    before = {key: value.clone() for key, value in student.state_dict().items()}
    assert not any(level.requires_grad for level in backbone(images))
    assert torch.equal(backbone(images)[0], backbone(images)[0])  # gates draw no noise
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())
    assert not any(weight.requires_grad for weight in backbone.parameters())


# --- the examples -----------------------------------------------------------------------------------------------------


@pytest.fixture
def example(monkeypatch, capsys, tmp_path):
    build().save_pretrained(tmp_path / "bundle")
    capsys.readouterr()

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, str(tmp_path / "bundle"), *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.fixture
def folder(tmp_path):
    """Red and blue pictures."""
    for split, count in (("train", 4), ("val", 3)):
        for colour in ("red", "blue"):
            (tmp_path / "folder" / split / colour).mkdir(parents=True)
            for number in range(count):
                shade = 140 + 20 * number
                rgb = (shade, 40, 40) if colour == "red" else (40, 40, shade)
                Image.new("RGB", (60, 50), rgb).save(tmp_path / "folder" / split / colour / f"{number}.png")
    return tmp_path / "folder"


@pytest.mark.parametrize("source", ["stem", "a", "semseg"])
def test_a_linear_probe(example, folder, source):
    assert example("linear_probe", folder, source).endswith(f"{source}: 100.0 % of 6 pictures\n")


def test_retrieval(example, folder):
    lines = example("retrieval", folder / "val/red/1.png", folder / "train", "b").splitlines()[-5:]
    assert all("/red/" in line for line in lines[:4])
    assert "/blue/" in lines[4]
    cosines = [float(line.split()[0]) for line in lines]
    assert cosines == sorted(cosines, reverse=True)


def test_a_detector_learns(example):
    losses = [float(value) for value in re.findall(r"loss ([\d.]+)", example("detection", 16))]
    assert len(losses) == 16
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])

"""The second branch: beside the vocabulary, behind it, a teacher or a student; what is frozen stays as it is."""

import pytest
import torch

from sak.bundles.bundle import load_bundle
from sak.errors import UserError
from sak.vocabulary.model import VocabularyModel
from sak.vocabulary.vision import Parallel, Serial, StudentBranch, TeacherBranch

CLIP = {
    "family": "clip",
    "model": "ViT-B-16",
    "weights": "random",
    "levels": [0, 1],
    "options": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 3, "head_width": 16, "embed_dim": 8},
}
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
TEXTS = (["Read", "Read it"], ["a ball", "12"])


def reader(parts, vision):
    tokens = parts.tokenizer()
    return VocabularyModel(vision, parts.language_model("qwen2", tokens), tokens)


def visions(parts, trained):
    """Each form that there is."""
    student = load_bundle(trained / "student")
    yield Parallel(parts.network(), TeacherBranch(CLIP), parts.WIDTH)
    yield Parallel(parts.network(), StudentBranch(student, "semseg"), parts.WIDTH)
    yield Serial(parts.network(), TeacherBranch(CLIP), parts.WIDTH)


def test_the_branch_comes_first_and_each_has_half_of_the_channels(parts):
    branch, network = TeacherBranch(CLIP), parts.network()
    vision = Parallel(network, branch, parts.WIDTH)
    tokens = vision(IMAGES)
    assert tokens.shape == (2, 4, parts.WIDTH)
    half = parts.WIDTH // 2
    torch.testing.assert_close(tokens[..., half:], vision.projection(network(IMAGES)))
    levels = torch.cat(branch.teacher(IMAGES), dim=1)  # (2, 2·32, 4, 4), on the grid of its own patches
    assert branch.channels == levels.shape[1] == 64
    means = torch.nn.functional.interpolate(levels, size=(2, 2), mode="bilinear", antialias=True)
    torch.testing.assert_close(tokens[..., :half], vision.branch_projection(means.flatten(2).transpose(1, 2)))


@pytest.mark.parametrize("source", ["stem", "dinov2", "semseg"])
def test_a_students_features_of_all_levels(trained, source):
    student = load_bundle(trained / "student")
    branch = StudentBranch(student, source).train()
    maps = branch(torch.rand(1, 3, 96, 96))
    assert maps.shape[1] == branch.channels == student.stem.width * len(student.levels)
    assert not branch.student.training
    images = torch.rand(1, 3, 96, 96)
    assert torch.equal(branch(images)[:, : student.stem.width], student.features(images, source)[0])


def test_a_student_without_that_source_is_refused(trained):
    with pytest.raises(UserError, match="source is 'depth', but the student has stem, dinov2"):
        StudentBranch(load_bundle(trained / "student"), "depth")


def test_in_series_clip_takes_the_vocabulary_for_its_patches(parts):
    network = parts.network()
    vision = Serial(network, TeacherBranch(CLIP), parts.WIDTH)
    tokens = network(IMAGES)
    vision.positions.data.zero_()
    inner = vision.ln_pre(torch.cat([vision.class_embedding.expand(2, 1, -1), tokens], dim=1))
    for block in vision.blocks:
        inner = block(inner)
    assert len(vision.blocks) == 2  # up to the last level
    expected = vision.projection(torch.cat([inner[:, 1:], tokens], dim=-1))
    torch.testing.assert_close(vision(IMAGES), expected)


def test_in_series_all_learns(parts):
    vision = Serial(parts.network(), TeacherBranch(CLIP), parts.WIDTH)
    vision(IMAGES).square().sum().backward()
    assert [name for name, weight in vision.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({**CLIP, "options": {**CLIP["options"], "width": 48}}, "CLIP has tokens of 48 channels, but the vocabulary's"),
        (
            {"family": "timm", "model": "vit_tiny_patch16_224", "weights": "random", "levels": [0]},
            "needs a vision transformer of the family clip",
        ),
    ],
)
def test_in_series_nothing_but_a_clip_of_that_width(parts, spec, said):
    with pytest.raises(UserError, match=said):
        Serial(parts.network(), TeacherBranch(spec), parts.WIDTH)


def test_what_is_frozen_does_not_change_and_all_else_does(parts, trained):
    for vision in visions(parts, trained):
        model = reader(parts, vision)
        model.freeze(network=True)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learning, 1e-2, weight_decay=0.1)
        model(IMAGES, *TEXTS).loss.backward()
        assert all(parameter.grad is not None for parameter in learning)  # or processes would wait for it
        optimizer.step()
        for name, value in model.state_dict().items():
            frozen = name.startswith(("vision.network.", "vision.branch."))
            assert torch.equal(value, before[name]) == frozen, name


def test_bundles_hold_the_branch_too(parts, trained, tmp_path):
    for number, vision in enumerate(visions(parts, trained)):
        model = reader(parts, vision).eval()
        model.save_pretrained(tmp_path / f"{number}")
        again = VocabularyModel.from_pretrained(tmp_path / f"{number}")
        assert torch.equal(again(IMAGES, *TEXTS).loss, model(IMAGES, *TEXTS).loss)


def test_what_a_clips_file_told_of_it_is_kept(parts, tmp_path):
    """Its activation and its pixels are no weights, and yet part of it."""
    spec = {**CLIP, "options": {**CLIP["options"], "quick_gelu": True, "mean": [0.1] * 3, "std": [0.2] * 3}}
    model = reader(parts, Parallel(parts.network(), TeacherBranch(spec), parts.WIDTH)).eval()
    model.save_pretrained(tmp_path / "bundle")
    again = VocabularyModel.from_pretrained(tmp_path / "bundle")
    assert torch.equal(again.vision(IMAGES), model.vision(IMAGES))
    branch = again.vision.branch.teacher
    assert branch.mean.flatten().tolist() == pytest.approx([0.1] * 3)
    assert type(branch.backbone.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"

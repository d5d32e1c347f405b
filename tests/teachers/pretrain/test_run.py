"""The command: weights that the family loads, cards, and mistakes in one sentence."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

import teachers
from sak.errors import UserError
from sak.tensors import metadata_of
from teachers.architecture import facts_of, noted
from teachers.pretrain import measures
from teachers.pretrain.miniatures import IMAGE_SIZE, MINIATURES
from teachers.pretrain.recipes import RECIPES
from teachers.pretrain.run import Options, pretrain


def options(archive, tmp_path, **others):
    given = {"data": archive, "output": tmp_path / "out", "work": tmp_path / "work", "command": "the command"}
    return Options(**{**given, "steps": 3, "batch_size": 4, **others})


@pytest.mark.parametrize(
    "name",
    # Measuring the masks of sam takes as long as the three others together; dinov2 is left out for its time alone.
    [pytest.param(name, marks=pytest.mark.slow) if name in ("dinov2", "sam") else name for name in sorted(MINIATURES)],
)
def test_a_few_steps_give_weights_that_the_family_loads(name, archive, tmp_path):
    pretrain(name, options(archive, tmp_path))
    weights = tmp_path / "out" / f"{name}.safetensors"
    teacher = teachers.build(name, dataclasses.replace(MINIATURES[name], weights=str(weights)))
    assert all(level.isfinite().all() for level in teacher(torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE)))
    text = (tmp_path / "out" / f"{name}.md").read_text()
    for part in (
        "the command",
        "3 of 3 steps: ",
        " of 4 images (",
        "| thumbnail |",
        "class, 20-NN",
        "12 rendered scenes",
    ):
        assert part in text
    assert (tmp_path / "out" / f"{name}.png").stat().st_size > 1000
    notes = noted(metadata_of(weights), weights)
    torch.testing.assert_close(torch.tensor(notes.pop("mean")), teacher.mean.flatten())
    torch.testing.assert_close(torch.tensor(notes.pop("std")), teacher.std.flatten())
    assert notes == facts_of(teacher.backbone)
    assert {"num_heads", "activation", "norm_eps"} <= notes.keys()
    if name == "vit":  # exporting trains no further
        written = load_file(weights)
        weights.unlink()
        assert pretrain(name, options(archive, tmp_path, export=True)) != []  # a few steps teach little
        torch.testing.assert_close(load_file(weights), written, rtol=0, atol=0)


def test_a_vit_of_another_width(archive, tmp_path):
    pretrain("vit", options(archive, tmp_path, width=24))
    spec, weights = MINIATURES["vit"], str(tmp_path / "out" / "vit.safetensors")
    small = dataclasses.replace(spec, weights=weights, options={**spec.options, "embed_dim": 24})
    features = teachers.build("small", small)(torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE))
    assert [level.shape[1] for level in features] == [24] * 4
    with pytest.raises(UserError, match="another version of this one"):  # its checkpoint has other shapes
        pretrain("vit", options(archive, tmp_path))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"steps": 1}, "--steps is 1, but sam learns in 2 phases"),
        ({"width": 64}, "sam has one width"),
        ({"device": "cuda:77"}, "--device cuda:77 cannot be used here"),
        ({"device": "gpu"}, "--device gpu cannot be used here"),
        ({"start": "nowhere.pt"}, "correct --init"),
        ({"export": True}, "train first, or correct --work"),
        ({"data": "nowhere"}, "--data must be a rendered archive"),
    ],
)
def test_mistakes_leave_everything_as_it_is(archive, tmp_path, changes, problem):
    shipped = tmp_path / "out" / "sam.safetensors"
    shipped.parent.mkdir()
    shipped.write_bytes(b"weights of hours")
    with pytest.raises(UserError, match=problem):
        pretrain("sam", options(archive, tmp_path, **changes))
    assert shipped.read_bytes() == b"weights of hours"
    assert not (tmp_path / "work").exists()


def test_an_unknown_miniature_is_named(archive, tmp_path):
    with pytest.raises(UserError, match="dinov2"):
        pretrain("dinov3", options(archive, tmp_path))


def test_recipes_keep_their_proportions():
    recipe = RECIPES["dinov2"]
    total = sum(phase.steps for phase in recipe.phases)
    half = recipe.scaled(total // 2, recipe.phases[0].batch_size * 2)
    assert sum(phase.steps for phase in half.phases) == total // 2
    for before, after in zip(recipe.phases, half.phases, strict=True):
        assert after.steps == pytest.approx(before.steps / 2, abs=1)
        assert after.batch_size == 2 * before.batch_size
    assert recipe.scaled().phases == recipe.phases


def test_the_panel_by_hand():
    """Features that are the answers get full marks, and constant ones what guessing gets."""
    torch.manual_seed(0)
    labels = torch.arange(200) % 4
    told = torch.eye(4)[labels] + 0.01 * torch.randn(200, 4)
    assert measures.accuracy(measures.nearest_neighbours(told, labels, told), labels) == 100
    assert measures.accuracy(measures.linear_probe(told, labels, told), labels) == 100
    assert measures.mean_iou(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])) == pytest.approx(
        100 * (1 / 2 + 2 / 3) / 2
    )
    x = torch.randn(500, 3)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 3
    torch.testing.assert_close(measures.ridge(x, y, x), y, atol=0.02, rtol=0)


def test_average_precision_by_hand():
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    truths = torch.tensor([[True, True], [False, False], [True, False], [False, False]])
    torch.testing.assert_close(measures.average_precision(scores, truths), torch.tensor([(1 + 2 / 3) / 2, 1 / 4]))

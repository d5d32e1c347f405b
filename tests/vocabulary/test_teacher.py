"""The vocabulary's encoder back in the committee: a family of teachers like the others."""

import pytest
import torch

import teachers
from sak import config
from sak.errors import UserError
from sak.training.train import train
from sak.vocabulary.model import VocabularyModel
from teachers.sam import run_block

SPEC = {"family": "vocabulary", "model": "vit_b", "levels": [0, 1]}


def test_its_features_are_the_blocks_of_the_bundles_network(read):
    teacher = teachers.build("read", {**SPEC, "weights": str(read)})
    network = VocabularyModel.from_pretrained(read).vision.network
    images = torch.rand(2, 3, 64, 64)
    tokens = network.patch_embed((images - network.mean) / network.std) + network.pos_embed
    for level, block in zip(teacher(images), network.blocks, strict=True):
        tokens = run_block(block, tokens)
        torch.testing.assert_close(level, tokens.permute(0, 3, 1, 2))
    assert teacher.dims == [32, 32]
    assert "left out: language_model, vision" in str(teacher.report)
    assert teacher(torch.rand(1, 3, 48, 96))[0].shape == (1, 32, 4, 8)  # the longer side at the encoder's 64


def test_published_weights_are_a_teacher_too(parts, tmp_path):
    network = parts.network()
    tensors = {f"transformer.vision_tower_high.{name}": value for name, value in network.state_dict().items()}
    torch.save({**tensors, "lm_head.weight": torch.ones(2)}, tmp_path / "vary.pth")
    options = {**parts.OPTIONS, "img_size": 64, "statistics": "imagenet"}
    teacher = teachers.build("vary", {**SPEC, "weights": str(tmp_path / "vary.pth"), "options": options})
    assert torch.equal(teacher.backbone.blocks[2].mlp.lin1.weight, network.blocks[2].mlp.lin1.weight)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": None}, "give a run of the stage vocabulary"),
        ({"weights": "nowhere"}, "no weights file nowhere"),
        ({"weights": "{trained}"}, "is no bundle of a vocabulary"),
        ({"weights": "{read}", "options": {"depth": 3}}, "says what its encoder is"),
        ({"weights": "random", "options": {"statistics": "imagnet"}}, "do not suit vit_b"),
        ({"weights": "random", "model": "vit_x"}, "unknown model of a vocabulary"),
    ],
)
def test_bad_specs_are_one_sentence(read, trained, changes, said):
    changes = dict(changes)
    if changes["weights"]:
        changes["weights"] = changes["weights"].format(read=read, trained=trained)
    with pytest.raises(UserError, match=said):
        teachers.build("read", {**SPEC, **changes})


def test_a_student_is_distilled_from_it(tiny, read, tmp_path):
    vocabulary = f"teachers.reading={{family: vocabulary, model: vit_b, weights: {read}, levels: [0, 1]}}"
    overrides = [
        vocabulary,
        "teachers.dinov2.levels=[0,1]",
        "student.levels=[1,3]",
        "data.tasks=[semseg]",
        "name=reads",
    ]
    few = ["stages.distill.steps=1", "stages.multitask.steps=1", "stages.multitask.evaluate_every=null"]
    run = train(config.load(tiny, [*overrides, *few]))
    from sak import Student

    assert Student.from_pretrained(run.student).sources == ("stem", "dinov2", "reading")

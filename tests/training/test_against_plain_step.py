"""A step of both stages against the paper's formulas written out plainly: losses, and the weights after it."""

import pytest
import torch

from sak import tasks
from sak.student import Student
from sak.training import objectives
from teachers import Committee

CHANNELS = {"semseg": 21, "human_parts": 7, "saliency": 2, "normals": 3, "edge": 1}
STEM = {"embed_dim": 32, "depth": 4, "num_heads": 2, "patch_size": 8}
LEVELS = [0, 1, 2, 3]
TEACHERS = {
    "dinov2": {
        "family": "dinov2",
        "model": "vit_small_patch14_dinov2",
        "options": {"img_size": 56, "embed_dim": 24, "depth": 4, "num_heads": 2},
    },
    "sam": {
        "family": "sam",
        "model": "vit_b",
        "options": {"img_size": 128, "embed_dim": 32, "depth": 4, "num_heads": 2, "window_size": 3},
    },
}


@pytest.fixture
def batch():
    """Images of 48 x 64 with labels of which a part is ignored."""
    torch.manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(2, 3, 48, 64), dim=1)
    batch = {
        "image": torch.rand(2, 3, 48, 64),
        "semseg": torch.randint(0, 21, (2, 48, 64)),
        "human_parts": torch.randint(0, 7, (2, 48, 64)),
        "saliency": torch.randint(0, 2, (2, 48, 64)),
        "normals": normals,
        "edge": torch.randint(0, 2, (2, 1, 48, 64)).float(),
    }
    for name in CHANNELS:
        batch[name][..., :10, :] = 255
    return batch


@pytest.mark.parametrize("stage", ["distill", "multitask"])
def test_losses_and_weights_after_a_step(stage, batch, reference):
    channels = CHANNELS if stage == "multitask" else {}
    spec = {"weights": "random", "levels": LEVELS}
    committee = Committee({name: {**teacher, **spec} for name, teacher in TEACHERS.items()})
    shape = {"image_size": (48, 64), "tasks": channels, "teachers": committee.dims, "levels": LEVELS}
    ours = Student(stem="vit_tiny_patch16_384", stem_options=STEM, **shape).train()
    theirs = reference("student").PlainStudent(stem="vit_tiny_patch16_384", options=STEM, **shape).train()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    kinds = {"dinov2": reference("teachers").PlainTimm, "sam": reference("teachers").PlainSAM}
    members = {
        name: kinds[name](teacher.backbone, LEVELS, teacher.mean.flatten().tolist(), teacher.std.flatten().tolist())
        for name, teacher in committee.members.items()
    }

    objective = objectives.distillation(objectives.of_images(committee), "cos+l1")
    if stage == "multitask":
        known = {name: tasks.build(name, "pascal_context") for name in channels}
        objective = objectives.multitask(objectives.of_images(committee), known, "cos+l1", 1.0)
    torch.manual_seed(1)  # of the gates' noise
    total, terms = objective(ours, batch)
    total.backward()
    # Plain descent: AdamW's first step has the size of the learning rate, whatever the gradient's.
    torch.nn.utils.clip_grad_norm_(ours.parameters(), 10.0)
    torch.optim.SGD(ours.parameters(), lr=0.1).step()
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    expected = reference("step").training_step(theirs, members, optimizer, batch, clip=10.0)

    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-4)
    assert len(expected) == len(channels) + 8
    before = dict(zip(theirs.state_dict(), theirs.state_dict().values(), strict=True))
    for name, weight in ours.state_dict().items():
        torch.testing.assert_close(weight, before[name], rtol=1e-3, atol=1e-5, msg=name)

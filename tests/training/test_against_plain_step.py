"""A step of both stages against the paper's formulas written out plainly: losses, and the weights after it."""

import pytest
import torch

from sak import data
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


def labelled(count, height, width):
    """Images with labels of which a part is ignored."""
    torch.manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(count, 3, height, width), dim=1)
    batch = {
        "image": torch.rand(count, 3, height, width),
        "semseg": torch.randint(0, 21, (count, height, width)),
        "human_parts": torch.randint(0, 7, (count, height, width)),
        "saliency": torch.randint(0, 2, (count, height, width)),
        "normals": normals,
        "edge": torch.randint(0, 2, (count, 1, height, width)).float(),
    }
    for name in CHANNELS:
        batch[name][..., :10, :] = 255
    return batch


@pytest.fixture
def batch():
    return labelled(2, 48, 64)


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
        known = {name: data.described("pascal_context").build(name) for name in channels}
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


@pytest.mark.slow
def test_the_published_student_at_full_size(reference):
    """A ViT-B on PASCAL-Context as published, but with random weights: outputs with noise, losses, all gradients.

    In float64, as in float32 the rounding of so many summands alone moves some gradients by 0.4 % (the losses are
    computed in float32 all the same). The teachers' features are random, on the published grids.
    """
    shape = {
        "stem": "vit_base_patch16_384",
        "image_size": (512, 512),
        "tasks": CHANNELS,
        "teachers": {"dinov2": [768] * 4, "clip": [768] * 4, "sam": [1024] * 4},
    }
    grids = {"dinov2": 36, "clip": 32, "sam": 64}
    torch.manual_seed(0)
    ours = Student(**shape).double()
    theirs = reference("student").PlainStudent(**shape).double()
    # Gates as training leaves them: neither even nor of one opinion.
    with torch.no_grad():
        for name, weight in ours.routers.named_parameters():
            if ".gate.3." in name:
                weight.normal_(std=0.3)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    batch = labelled(1, 512, 512)
    batch["image"] = batch["image"].double()
    features = {
        name: [3 * torch.randn(1, width, grids[name], grids[name]) for width in widths]
        for name, widths in shape["teachers"].items()
    }

    for training in (False, True):
        outputs = []
        for model in (ours.train(training), theirs.train(training)):
            torch.manual_seed(1)  # of the gates' noise
            norms = [norm for norm in model.modules() if isinstance(norm, torch.nn.BatchNorm2d)]
            for norm in norms:
                norm.momentum = 0.0
            with torch.no_grad():
                outputs.append(model(batch["image"]))
        found, (predictions, paths, routing) = outputs
        for one, other in ((found.predictions, predictions), (found.paths, paths), (found.routing, routing)):
            assert one.keys() == other.keys()
            for name, values in other.items():
                for ours_, expected in zip(one[name], values, strict=True):
                    assert (ours_ - expected).norm() < 1e-10 * expected.norm(), (training, name)

    known = {name: data.described("pascal_context").build(name) for name in CHANNELS}
    torch.manual_seed(2)
    total, terms = objectives.multitask(lambda batch: features, known, "cos+l1", 1.0)(ours, batch)
    total.backward()
    torch.manual_seed(2)
    teachers = {name: lambda images, name=name: features[name] for name in features}
    expected = reference("step").training_step(theirs, teachers, torch.optim.SGD(theirs.parameters(), lr=0.0), batch)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-5)
    gradients = {name: weight.grad for name, weight in theirs.named_parameters() if weight.grad is not None}
    assert gradients.keys() == {name for name, weight in ours.named_parameters() if weight.grad is not None}
    for name, gradient in gradients.items():
        if not name.endswith("fuse.0.bias"):  # whose effect a batch norm takes away
            assert (ours.get_parameter(name).grad - gradient).norm() < 1e-5 * gradient.norm(), name

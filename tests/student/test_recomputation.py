"""Activation checkpointing: the same student, trained with less memory."""

import copy

import pytest
import torch

from sak.preflight.plan import step_memory
from sak.student import Student

SHAPE = {
    "stem": "vit_tiny_patch16_384",
    "stem_options": {"embed_dim": 32, "depth": 4, "num_heads": 2, "patch_size": 8},
    "image_size": (64, 64),
    "tasks": {"semseg": 5, "edge": 1},
    "teachers": {"wide": [24] * 4, "own": [32] * 4},
    "levels": (0, 1, 2, 3),
}


def step(student, images, tasks=None):
    """Outputs, gradients, buffers, and where the random state ends."""
    torch.manual_seed(1)  # of the gates' noise
    output = student(images, tasks)
    maps = [*output.predictions.values(), *(level for levels in output.paths.values() for level in levels)]
    sum(m.square().mean() for m in maps).backward()
    gradients = {name: p.grad for name, p in student.named_parameters() if p.grad is not None}
    return output, gradients, dict(student.named_buffers()), torch.get_rng_state()


@pytest.mark.parametrize("options", [{}, {"paths": "none"}, {"router": "sum"}, {"router": "token_topk"}])
@pytest.mark.parametrize("tasks", [None, ()])
def test_outputs_gradients_and_statistics_are_the_same(options, tasks):
    torch.manual_seed(0)
    kept = Student(**SHAPE, **options).train()
    recomputed = copy.deepcopy(kept)
    recomputed.activation_checkpointing = True
    images = torch.rand(2, 3, 64, 64)
    output, gradients, buffers, random = step(kept, images, tasks)
    again, gradients_again, buffers_again, random_again = step(recomputed, images, tasks)
    torch.testing.assert_close(vars(again), vars(output), rtol=0, atol=0)
    torch.testing.assert_close(gradients_again, gradients, rtol=0, atol=0)
    torch.testing.assert_close(buffers_again, buffers, rtol=0, atol=0)
    assert torch.equal(random, random_again)
    assert len(gradients) > 20


def test_statistics_still_move_once_per_step():
    student = Student(**SHAPE).train()
    student.activation_checkpointing = True
    step(student, torch.rand(2, 3, 64, 64))
    norm = student.heads["edge"].fuse[1]
    assert norm.num_batches_tracked == 1
    assert norm.running_mean.abs().sum() > 0
    assert norm.momentum == 0.1


def test_a_head_of_mmsegmentation_with_dropout():
    head = {"type": "mmseg.FCNHead", "options": {"dropout_ratio": 0.5, "num_convs": 1}}
    torch.manual_seed(0)
    kept = Student(**SHAPE, heads={"edge": head}).train()
    recomputed = copy.deepcopy(kept)
    recomputed.activation_checkpointing = True
    images = torch.rand(2, 3, 64, 64)
    gradients, gradients_again = step(kept, images)[1], step(recomputed, images)[1]
    torch.testing.assert_close(gradients_again, gradients, rtol=0, atol=0)


def test_it_takes_less_memory():
    def peak(recompute):
        student = Student(**SHAPE).train()
        student.activation_checkpointing = recompute

        def objective(model, batch):
            return sum(p.square().mean() for p in model(batch["image"]).predictions.values()), {}

        weights, peak = step_memory(student, [student], objective, {"image": torch.rand(8, 3, 64, 64)})
        return peak - weights

    peak(False)  # fills the caches of constants
    assert peak(True) < 0.6 * peak(False)

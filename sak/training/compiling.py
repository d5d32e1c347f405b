"""Training through torch.compile, where that works."""

import contextlib
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import cast

import torch
from torch import nn

from sak.training.objectives import Objective


def compiled(
    objective: Objective,
    model: nn.Module,
    image_shape: tuple[int, int, int, int],
    predicts: bool,
    autocast: Callable[[], AbstractContextManager] = contextlib.nullcontext,
) -> Objective:
    """The objective with a compiled student, or the objective itself and a warning where compiling fails.

    torch compiles at the first call, and once more at the first backward pass: both are tried here, on noise, so that
    a failure costs no step. Weights, statistics and the random state are left as they were.

    Args:
        model: the student in training mode, or what wraps it.
        image_shape: (B, 3, H, W) of its training images.
        predicts: whether the objective asks for predictions, or for paths alone.
        autocast: of the training.
    """
    forward = cast(nn.Module, torch.compile(model))
    state = {name: buffer.clone() for name, buffer in model.named_buffers()}
    device = next(model.parameters()).device
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), autocast():
            images = torch.rand(image_shape, device=device)
            output = forward(images) if predicts else forward(images, tasks=())
            maps = [*output.predictions.values(), *(level for levels in output.paths.values() for level in levels)]
            sum(level.float().mean() for level in maps).backward()
    except Exception as error:  # of the compiler's own kinds, of the tools that it calls, and of what they print
        reason = " ".join(str(error).split("\n")[:2]) or type(error).__name__  # the first line may name a backend alone
        warnings.warn(f"compile=true does not work here, training goes on without it: {reason}", stacklevel=2)
        return objective
    finally:
        for name, buffer in model.named_buffers():
            buffer.copy_(state[name])
        model.zero_grad()
    return lambda _, batch: objective(forward, batch)

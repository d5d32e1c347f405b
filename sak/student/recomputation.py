"""Activation checkpointing: what a part computed on the way forward is computed again on the way back, not kept."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(function: Callable, *arguments, of: nn.Module):
    """``function(*arguments)`` that keeps no activations for the backward pass; values and gradients are the same.

    The second time, the gates' noise is that of the first, and batch norms leave their running statistics alone, which
    have seen the batch already.

    Args:
        arguments: among them, all tensors that the function reads: they tell on which devices it draws noise.
        of: the module whose batch norms it runs.
    """
    if not torch.is_grad_enabled():
        return function(*arguments)
    return checkpoint(
        function,
        *arguments,
        use_reentrant=False,
        context_fn=lambda: (contextlib.nullcontext(), _frozen_statistics(of)),
    )


@contextlib.contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    # With momentum 0 the statistics stay; without any, autograd would find other tensors than the first time.
    before = [
        (part, part.momentum, count)
        for part in module.modules()
        if isinstance(part, _BatchNorm) and part.training and (count := part.num_batches_tracked) is not None
    ]
    for norm, _, count in before:
        norm.momentum, norm.num_batches_tracked = 0.0, count.clone()
    try:
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum, norm.num_batches_tracked = momentum, count

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
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.training]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count

"""The optimizer's learning rate, as a function of the step alone."""

import math

import torch
from torch import nn

from sak.config.schema import OptimConfig


def learning_rate(optim: OptimConfig, step: int, steps: int, steps_per_epoch: int) -> float:
    """Of step 0 ... steps - 1: linear warm-up from ``warmup_lr``, then cosine to ``min_lr`` or poly to 0."""
    warmup = optim.warmup_steps if optim.warmup_epochs is None else optim.warmup_epochs * steps_per_epoch
    if step < warmup:
        return optim.warmup_lr + (optim.lr - optim.warmup_lr) * step / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    if optim.schedule == "cosine":
        return optim.min_lr + (optim.lr - optim.min_lr) * (1 + math.cos(math.pi * progress)) / 2
    return optim.lr * (1 - progress) ** optim.power


def adamw(model: nn.Module, optim: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the parameters that require a gradient, in fused kernels: one pass over the memory of each."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=optim.lr, weight_decay=optim.weight_decay, fused=True)

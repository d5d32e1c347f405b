"""The optimizer's learning rate, as a function of the step alone."""

import math

from omegaconf import DictConfig

from sak.config.schema import OptimConfig


def learning_rate(optim: OptimConfig | DictConfig, step: int, steps: int, steps_per_epoch: int) -> float:
    """Of step 0 ... steps - 1: linear warm-up from ``warmup_lr``, then cosine to ``min_lr`` or poly to 0."""
    warmup = optim.warmup_steps if optim.warmup_epochs is None else optim.warmup_epochs * steps_per_epoch
    if step < warmup:
        return optim.warmup_lr + (optim.lr - optim.warmup_lr) * step / warmup
    progress = (step - warmup) / (steps - warmup)
    if optim.schedule == "cosine":
        return optim.min_lr + (optim.lr - optim.min_lr) * (1 + math.cos(math.pi * progress)) / 2
    return optim.lr * (1 - progress) ** optim.power

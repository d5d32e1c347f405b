"""What every training asks of a config: how many steps, of how many images, and its optimizer."""

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class OptimConfig:
    """AdamW with a linear warm-up and then a cosine or polynomial decay."""

    lr: float = MISSING
    weight_decay: float = MISSING
    schedule: str = MISSING  # cosine or poly
    warmup_steps: int = 0
    warmup_epochs: int | None = None  # instead of warmup_steps
    warmup_lr: float = 0.0  # where the warm-up starts
    min_lr: float = 0.0  # where the cosine ends
    power: float = 0.9  # of poly
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])  # of AdamW
    clip: float | None = None  # largest norm of the gradient


@dataclass
class StepsConfig:
    """``steps`` or ``epochs``; ``steps: 0`` leaves the stage out, whatever ``epochs`` says."""

    steps: int | None = None
    epochs: int | None = None
    batch_size: int = MISSING  # images per optimizer step, over all devices and accumulated micro-batches
    accumulate: int = 1  # micro-batches per optimizer step
    checkpoint_every: int = 1000  # steps
    keep_last: int = 2  # checkpoints of the stage
    log_every: int = 10  # steps
    optim: OptimConfig = field(default_factory=OptimConfig)

"""Training in float16 with a gradient scaler on a CPU, for tests: accelerate computes in float32 there."""

import torch
from accelerate import Accelerator

from sak.evaluation.distributed import build_accelerator


def build(scale: float = 2.0**16, growth_interval: int = 3):
    """In place of `build_accelerator`: with autocast to float16 and a scaler that begins at this scale."""

    def built(precision: str, data_timeout: float = 0) -> Accelerator:
        accelerator = build_accelerator(precision, data_timeout)
        if precision == "fp16":
            accelerator.native_amp = True
            accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=growth_interval)
        return accelerator

    return built

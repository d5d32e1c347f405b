"""Root mean squared error of depth."""

import torch
from torchmetrics import Metric

from sak.metrics.exact_sum import exact_sum, from_exact

MAX_DEPTH = 80.0  # metres; the ignored value, 255, lies beyond


class DepthRMSE(Metric):
    """Metres, over the valid pixels of the whole set, those with 0 < target < 80 (NaN where there is none).

    As no depth is negative, a prediction below 0 counts as 0, as in the published evaluation.
    Legend: B batch, H, W image.
    """

    squares: torch.Tensor
    pixels: torch.Tensor

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.add_state("squares", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("pixels", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        """Both (B, 1, H, W), metres."""
        valid = (target > 0) & (target < MAX_DEPTH)
        errors = (prediction.float().clamp(min=0) - target).masked_fill_(~valid, 0)
        self.squares += exact_sum(errors.double().square_()).to(self.squares.device)
        self.pixels += valid.sum().to(self.pixels.device)

    def compute(self) -> torch.Tensor:
        """Metres."""
        return (from_exact(self.squares) / self.pixels).sqrt()

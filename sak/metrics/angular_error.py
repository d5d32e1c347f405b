"""Mean angle between predicted and true surface normals."""

import torch
import torch.nn.functional as F
from torchmetrics import Metric

from sak.metrics.exact_sum import exact_sum, from_exact

IGNORE = 255


class AngularError(Metric):
    """Degrees, mean over the valid pixels of the whole set (NaN where there is none).

    The angle between unit vectors p and g is 2 atan2(|p − g|, |p + g|), which unlike arccos keeps its precision at
    small angles (Kahan). Legend: B batch, H, W image. Pixels whose target is 255 do not count.
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("pixels", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        """Both (B, 3, H, W), of any length other than 0."""
        valid = (target != IGNORE).all(dim=1)
        prediction, target = F.normalize(prediction.float(), dim=1), F.normalize(target.float(), dim=1)
        angles = 2 * torch.atan2((prediction - target).norm(dim=1), (prediction + target).norm(dim=1))
        self.total += exact_sum(angles[valid].rad2deg()).to(self.total.device)
        self.pixels += valid.sum().to(self.pixels.device)

    def compute(self) -> torch.Tensor:
        """Degrees."""
        return from_exact(self.total) / self.pixels

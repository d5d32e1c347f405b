"""Mean angle between predicted and true surface normals."""

import torch
from torchmetrics import Metric

from sak.labels import IGNORE
from sak.metrics.exact_sum import exact_sum, from_exact


class AngularError(Metric):
    """Degrees, mean over the valid pixels of the whole set (NaN where there is none).

    The angle between p and g is atan2(|p × g|, p · g), which unlike arccos keeps its precision at small angles and is
    the published 2 atan2(|p − g|, |p + g|) of unit vectors. Pixels whose target is 255 do not count.
    Legend: B batch, H, W image.
    """

    total: torch.Tensor
    pixels: torch.Tensor

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("pixels", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        """Both (B, 3, H, W), of any length other than 0."""
        p, g = prediction.float().unbind(1), target.float().unbind(1)
        valid = (g[0] != IGNORE) & (g[1] != IGNORE) & (g[2] != IGNORE)
        # Channel by channel and in place: memory, not arithmetic, is what this costs.
        sine = torch.zeros_like(p[0])
        cosine = p[0] * g[0]
        for i, j in ((0, 1), (1, 2), (2, 0)):
            sine += (p[i] * g[j]).addcmul_(p[j], g[i], value=-1).square_()
            if j:
                cosine.addcmul_(p[j], g[j])
        sine = sine.sqrt_().clamp_(min=torch.finfo(sine.dtype).tiny)  # or a null vector would be right everywhere
        angles = torch.atan2(sine, cosine).rad2deg_().masked_fill_(~valid, 0)
        self.total += exact_sum(angles).to(self.total.device)
        self.pixels += valid.sum().to(self.pixels.device)

    def compute(self) -> torch.Tensor:
        """Degrees."""
        return from_exact(self.total) / self.pixels

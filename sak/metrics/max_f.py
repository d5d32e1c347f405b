"""Maximum F-measure of saliency (Achanta et al., CVPR 2009)."""

import torch
from torchmetrics import Metric

from sak.labels import IGNORE
from sak.metrics.exact_sum import exact_sum, from_exact

BETA_SQUARED = 0.3
NUM_THRESHOLDS = 19  # 0.05, 0.10, ..., 0.95


class MaxF(Metric):
    """max_f and miou of a foreground probability, each at its best threshold t of 0.05, 0.10, ..., 0.95 (p >= t).

    max_f: F with β² = 0.3, of precision and recall from counts summed over the whole set.
    miou: IoU of the foreground, averaged over images. An image without foreground, neither true nor predicted, is a
    perfect answer; one without a valid pixel does not count.
    Legend: B batch, H, W image, K thresholds. Pixels whose target is 255 do not count.
    """

    true_positives: torch.Tensor
    predicted: torch.Tensor
    foreground: torch.Tensor
    iou: torch.Tensor
    images: torch.Tensor

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        for name in ("true_positives", "predicted", "foreground"):
            self.add_state(name, torch.zeros(NUM_THRESHOLDS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("iou", torch.zeros(2, NUM_THRESHOLDS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probability: torch.Tensor, target: torch.Tensor) -> None:
        """Both (B, H, W): probability of the foreground in [0, 1]; target 1 = foreground, 0 = not."""
        batch, bins = len(target), NUM_THRESHOLDS + 1
        # One histogram per image and class over the number of thresholds that a pixel reaches, 0..K ...
        reached = thresholds_reached(probability.float())
        valid = target != IGNORE
        cells = torch.arange(0, 2 * batch * bins, 2 * bins, device=target.device, dtype=torch.int32)[:, None, None]
        cells = (cells + (target == 1).int() * bins).add_(reached).masked_fill_(~valid, 2 * batch * bins)
        histogram = torch.bincount(cells.flatten(), minlength=2 * batch * bins + 1)[:-1]
        # ... summed from above: how many pixels reach each threshold.
        reaching = histogram.view(batch, 2, bins).flip(-1).cumsum(-1).flip(-1)  # (B, 2, K + 1)
        true_positives = reaching[:, 1, 1:]
        predicted = reaching[:, :, 1:].sum(1)
        foreground = reaching[:, 1, :1].expand_as(predicted)
        union = predicted + foreground - true_positives
        iou = torch.where(union > 0, true_positives.double() / union.clamp(min=1), 1.0)
        counted = valid.flatten(1).any(1)

        self.true_positives += true_positives.sum(0).to(self.true_positives.device)
        self.predicted += predicted.sum(0).to(self.predicted.device)
        self.foreground += foreground.sum(0).to(self.foreground.device)
        self.iou += exact_sum(iou[counted], dim=0).to(self.iou.device)
        self.images += counted.sum().to(self.images.device)

    def compute(self) -> dict[str, torch.Tensor]:
        """{"max_f", "miou"} in percent; 0 for a set without foreground resp. without images."""
        # F = (1 + β²) P R / (β² P + R) with P = tp / predicted and R = tp / foreground.
        weighted = BETA_SQUARED * self.foreground.double() + self.predicted.double()
        f = (1 + BETA_SQUARED) * self.true_positives.double() / weighted.clamp(min=BETA_SQUARED)
        iou = from_exact(self.iou) / self.images.clamp(min=1)
        return {"max_f": 100 * f.max(), "miou": 100 * iou.max()}


def thresholds_reached(probability: torch.Tensor) -> torch.Tensor:
    """int32, of the shape of `probability` (float32): how many of the thresholds k / 20 each value reaches.

    Multiplied by 20 and rounded down, a value is off by at most one; comparing it with its two thresholds settles it.
    """
    scale = NUM_THRESHOLDS + 1
    reached = (probability * scale).nan_to_num_(0).floor_()
    reached += probability >= (reached + 1) / scale
    reached -= (probability < reached / scale).float()
    return reached.clamp_(0, NUM_THRESHOLDS).int()

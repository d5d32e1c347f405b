"""Maximum F-measure of saliency (Achanta et al., CVPR 2009)."""

import torch
from torchmetrics import Metric

from sak.metrics.exact_sum import exact_sum, from_exact

IGNORE = 255
BETA_SQUARED = 0.3
NUM_THRESHOLDS = 19  # 0.05, 0.10, ..., 0.95


class MaxF(Metric):
    """max_f and miou of a foreground probability, each at its best threshold t of 0.05, 0.10, ..., 0.95 (p >= t).

    max_f: F with β² = 0.3, of precision and recall from counts summed over the whole set.
    miou: IoU of the foreground, averaged over images. An image without foreground, neither true nor predicted, is a
    perfect answer; one without a valid pixel does not count.
    Legend: B batch, H, W image, K thresholds. Pixels whose target is 255 do not count.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        for name in ("true_positives", "predicted", "foreground"):
            self.add_state(name, torch.zeros(NUM_THRESHOLDS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("iou", torch.zeros(2, NUM_THRESHOLDS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probability: torch.Tensor, target: torch.Tensor) -> None:
        """Both (B, H, W): probability of the foreground in [0, 1]; target 1 = foreground, 0 = not."""
        batch = len(target)
        thresholds = torch.arange(1, NUM_THRESHOLDS + 1, device=probability.device) / (NUM_THRESHOLDS + 1)
        # One histogram per image and class over the number of thresholds that a pixel reaches, 0..K ...
        reached = torch.bucketize(probability.float().contiguous(), thresholds, right=True)
        cells = torch.arange(batch, device=target.device)[:, None, None] * 2 + (target == 1)
        valid = target != IGNORE
        bins = (cells * (NUM_THRESHOLDS + 1) + reached)[valid]
        histogram = torch.bincount(bins, minlength=batch * 2 * (NUM_THRESHOLDS + 1))
        # ... summed from above: how many pixels reach each threshold.
        reaching = histogram.view(batch, 2, NUM_THRESHOLDS + 1).flip(-1).cumsum(-1).flip(-1)  # (B, 2, K + 1)
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

"""Mean intersection over union of a semantic segmentation."""

import torch
from torchmetrics import Metric

from sak.labels import IGNORE


class MeanIoU(Metric):
    """One confusion matrix over the whole set; a class that is nowhere, neither seen nor predicted, counts 0.

    Legend: B batch, H, W image. Pixels whose target is 255 do not count.
    """

    confusion: torch.Tensor

    def __init__(self, num_classes: int, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        # Rows are targets, columns predictions.
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        """Both (B, H, W), classes as integers."""
        # The ignored pixels get a row of their own: cheaper than to pick out the others.
        pairs = target.long() * self.num_classes + prediction
        rows = torch.bincount(pairs.flatten(), minlength=(IGNORE + 1) * self.num_classes).view(-1, self.num_classes)
        if rows[self.num_classes : IGNORE].any():
            raise ValueError(f"a target lies beyond the {self.num_classes} classes, and is not {IGNORE}")
        self.confusion += rows[: self.num_classes].to(self.confusion.device)

    def compute(self) -> torch.Tensor:
        """Percent."""
        return self.of_classes().mean()

    def of_classes(self) -> torch.Tensor:
        """Percent of each class, (num_classes,) float64."""
        confusion = self.confusion.double()
        intersection = confusion.diagonal()
        union = confusion.sum(0) + confusion.sum(1) - intersection
        return 100 * intersection / union.clamp(min=1)

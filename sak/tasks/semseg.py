"""Semantic segmentation, into the classes that the data set has."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sak.labels import IGNORE
from sak.metrics.miou import MeanIoU
from sak.tasks.base import HIGHER, Task, palette
from sak.tasks.description import Kind


class Segmentation(Task):
    """One class per pixel: cross-entropy, argmax, mean intersection over union."""

    kind = Kind.CLASSES
    measures = {"miou": HIGHER}
    units = "%"

    def loss(self, output: Tensor, label: Tensor) -> Tensor:
        summed = F.cross_entropy(output.float(), label, ignore_index=IGNORE, reduction="sum")
        return summed / (label != IGNORE).sum().clamp(min=1)

    def predict(self, output: Tensor) -> Tensor:
        return output.max(dim=1).indices  # the first of equal ones, as argmax, which is slow across channels

    def new_metric(self, workers: int = 0) -> MeanIoU:
        return MeanIoU(self.channels)

    def constants(self, labels: Iterable[Tensor]) -> Tensor:
        # A constant's mIoU is the share of its class divided by the number of classes.
        counts = (torch.bincount(label[label != IGNORE].flatten(), minlength=self.channels) for label in labels)
        return F.one_hot(sum(counts, torch.tensor(0)).argmax(), self.channels).float()[None]

    def to_file(self, prediction: np.ndarray) -> np.ndarray:
        """Class indices."""
        return prediction.astype(np.uint8)

    def colour(self, prediction: np.ndarray) -> np.ndarray:
        return palette(self.description)[prediction]

    def key(self, maps: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
        """The classes that occur, in the order of their labels."""
        maps = list(maps)
        found = sorted({int(label) for values in maps for label in np.unique(values)} - {IGNORE})
        names = {label: self.classes[label] if label < len(self.classes) else f"class {label}" for label in found}
        return {name: palette(self.description)[label] for label, name in names.items()} | super().key(maps)


class SemSeg(Segmentation):
    name = "semseg"
    weight = 1.0

"""Semantic boundaries."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sak.metrics.boundary import BoundaryF
from sak.tasks.base import HIGHER, IGNORE, Task

POSITIVE_WEIGHT = 0.95
MAX_DIST = {"pascal_context": 0.0075, "nyud": 0.011}  # of the image's diagonal


class Edge(Task):
    name = "edge"
    weight = 50.0
    measures = {"ods_f": HIGHER, "ois_f": HIGHER, "ap": HIGHER}
    units = "%"
    channels_of = {"pascal_context": 1, "nyud": 1}

    def loss(self, output: Tensor, label: Tensor) -> Tensor:
        """Binary cross-entropy on logits, a boundary pixel weighing 0.95 and any other 0.05, per valid pixel."""
        valid = label != IGNORE
        weights = torch.where(label == 1, POSITIVE_WEIGHT, 1 - POSITIVE_WEIGHT) * valid
        terms = F.binary_cross_entropy_with_logits(output.float(), label.where(valid, 0), weights, reduction="sum")
        return terms / valid.sum().clamp(min=1)

    def predict(self, output: Tensor) -> Tensor:
        """(B, 1, H, W) probability of a boundary."""
        return output.sigmoid()

    def new_metric(self) -> BoundaryF:
        return BoundaryF(MAX_DIST[self.dataset])

    def truth(self, batch: Mapping[str, Tensor]) -> Tensor:
        # Boundaries are judged against other maps than those that training uses.
        return batch["boundaries"]

    def constants(self, labels: Iterable[Tensor]) -> Tensor:
        return torch.tensor([[20.0]])  # a boundary everywhere

    def colour(self, prediction: np.ndarray) -> np.ndarray:
        grey = np.where(prediction[0] == IGNORE, 224, prediction[0].clip(0, 1) * 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)

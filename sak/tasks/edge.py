"""Semantic boundaries."""

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sak.labels import IGNORE
from sak.metrics.boundary import BoundaryF
from sak.tasks.base import HIGHER, Scale, Task
from sak.tasks.description import Kind, TaskDescription

POSITIVE_WEIGHT = 0.95
FAINT = 3.5 / 255  # 3 in 8 bits
MAX_DIST = 0.0075  # of the image's diagonal, where the data set says nothing: that of BSDS and PASCAL


def boundaries_of(task: str) -> str:
    """The key of a sample under which the boundaries lie that a task's metric matches."""
    return "boundaries" if task == Edge.name else f"{task}_boundaries"


class Edge(Task):
    name = "edge"
    kind = Kind.BOUNDARY
    weight = 50.0
    measures = {"ods_f": HIGHER, "ois_f": HIGHER, "ap": HIGHER}
    units = "%"
    default = TaskDescription(channels=1, max_dist=MAX_DIST)
    scale = Scale("magma", 0, 1, "probability of a boundary")

    def __init__(self, description: TaskDescription, protocol: Literal["sak", "invpt"] = "sak"):
        """``protocol``: under which boundaries are evaluated, see ``sak.metrics.boundary``."""
        super().__init__(description)
        self.protocol = protocol

    def loss(self, output: Tensor, label: Tensor) -> Tensor:
        """Binary cross-entropy on logits, a boundary pixel weighing 0.95 and any other 0.05, per valid pixel."""
        valid = label != IGNORE
        weights = torch.where(label == 1, POSITIVE_WEIGHT, 1 - POSITIVE_WEIGHT) * valid
        terms = F.binary_cross_entropy_with_logits(output.float(), label.where(valid, 0), weights, reduction="sum")
        return terms / valid.sum().clamp(min=1)

    def predict(self, output: Tensor) -> Tensor:
        """(B, 1, H, W) probability of a boundary."""
        return output.sigmoid()

    def new_metric(self, workers: int = 0) -> BoundaryF:
        return BoundaryF(self.description.max_dist or MAX_DIST, self.protocol, workers)

    def truth(self, batch: Mapping[str, Tensor]) -> Tensor:
        # Boundaries are evaluated against other maps than those that training uses.
        return batch[boundaries_of(self.name)]

    def constants(self, labels: Iterable[Tensor]) -> Tensor:
        # A boundary everywhere, faintly: a uniform map is thinned to the same line at every value, but that of 3/255
        # passes the lowest threshold alone, so that one thinning is enough where p = 1 would need one per threshold.
        return torch.tensor([[FAINT]]).logit()

    def to_file(self, prediction: np.ndarray) -> np.ndarray:
        """255 p, truncated: what the metric takes, and others' tools expect."""
        return (255 * prediction[0]).astype(np.uint8)

    def colour(self, prediction: np.ndarray) -> np.ndarray:
        return self.scale.colour(prediction[0])

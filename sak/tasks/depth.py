"""Depth in metres."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from sak.labels import IGNORE
from sak.metrics.rmse import DepthRMSE
from sak.tasks.base import LOWER, Scale, Task
from sak.tasks.description import Kind, TaskDescription


class Depth(Task):
    name = "depth"
    kind = Kind.DISTANCE
    weight = 1.0
    measures = {"rmse": LOWER}
    units = "metres"
    digits = 4
    default = TaskDescription(channels=1)
    scale = Scale("viridis", 0, 10, "depth, metres (beyond 10 as 10)")  # NYUD's rooms end there

    def loss(self, output: Tensor, label: Tensor) -> Tensor:
        """L1 per valid pixel."""
        valid = label != IGNORE
        return ((output.float() - label).abs() * valid).sum() / valid.sum().clamp(min=1)

    def predict(self, output: Tensor) -> Tensor:
        return output

    def new_metric(self, workers: int = 0) -> DepthRMSE:
        return DepthRMSE()

    def constants(self, labels: Iterable[Tensor]) -> Tensor:
        # The mean has the least squared error.
        count, summed = 0, 0.0
        for label in labels:
            valid = label[label != IGNORE]
            count, summed = count + len(valid), summed + valid.double().sum()
        return torch.tensor([[summed / max(count, 1)]], dtype=torch.float32)

    def to_file(self, prediction: np.ndarray) -> np.ndarray:
        """Metres."""
        return prediction[0].astype(np.float32)

    def colour(self, prediction: np.ndarray) -> np.ndarray:
        return self.scale.colour(prediction[0])

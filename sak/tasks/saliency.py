"""Saliency: what catches the eye, as a two-class map."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sak.labels import IGNORE
from sak.metrics.max_f import MaxF
from sak.tasks.base import HIGHER, Scale, Task
from sak.tasks.description import Kind, TaskDescription


class Saliency(Task):
    name = "saliency"
    kind = Kind.CLASSES
    weight = 5.0
    measures = {"max_f": HIGHER, "miou": HIGHER}
    units = "%"
    default = TaskDescription(channels=2)
    scale = Scale("magma", 0, 1, "probability of being salient")

    def loss(self, output: Tensor, label: Tensor) -> Tensor:
        """Cross-entropy in which each class weighs as much as the share of the other among the valid pixels."""
        valid = label != IGNORE
        count = valid.sum().clamp(min=1)
        foreground = ((label == 1) & valid).sum() / count
        weights = torch.stack([foreground, 1 - foreground])
        return F.cross_entropy(output.float(), label, weights, ignore_index=IGNORE, reduction="sum") / count

    def predict(self, output: Tensor) -> Tensor:
        """(B, H, W) probability of the foreground."""
        return (output[:, 1] - output[:, 0]).sigmoid()  # the softmax of two

    def new_metric(self, workers: int = 0) -> MaxF:
        return MaxF()

    def constants(self, labels: Iterable[Tensor]) -> Tensor:
        return torch.tensor([[-20.0, 20.0], [20.0, -20.0]])  # all salient, nothing salient

    def to_file(self, prediction: np.ndarray) -> np.ndarray:
        """255 p, truncated."""
        return (255 * prediction).astype(np.uint8)

    def colour(self, prediction: np.ndarray) -> np.ndarray:
        return self.scale.colour(prediction)

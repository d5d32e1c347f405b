"""Surface normals in the camera's frame."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sak.labels import IGNORE
from sak.metrics.angular_error import AngularError
from sak.tasks.base import IGNORED, LOWER, Task
from sak.tasks.description import Kind, TaskDescription

WEISZFELD_STEPS = 50
# Where a surface faces, in the camera's frame: x to the right, y up, z towards the viewer.
AXES = {
    **{"faces right": (1, 0, 0), "faces left": (-1, 0, 0), "faces up": (0, 1, 0), "faces down": (0, -1, 0)},
    "faces the camera": (0, 0, 1),
}


class Normals(Task):
    name = "normals"
    kind = Kind.VECTORS
    weight = 10.0
    measures = {"mean_error": LOWER}
    units = "degrees"
    default = TaskDescription(channels=3)

    def loss(self, output: Tensor, label: Tensor) -> Tensor:
        """L1 between unit vectors, summed over their components, per valid pixel."""
        valid = (label != IGNORE).all(dim=1, keepdim=True)
        difference = (self.predict(output.float()) - label).abs() * valid
        return difference.sum() / valid.sum().clamp(min=1)

    def predict(self, output: Tensor) -> Tensor:
        """(B, 3, H, W) unit vectors."""
        # As F.normalize, whose norm is slow over channels that lie far apart; a null vector has no gradient, as there.
        x, y, z = output.unbind(dim=1)
        return output / (x * x + y * y + z * z).clamp(min=1e-24).sqrt()[:, None]

    def new_metric(self, workers: int = 0) -> AngularError:
        return AngularError()

    def constants(self, labels: Iterable[Tensor]) -> Tensor:
        """The direction of least mean angle, by Weiszfeld's iteration on the sphere, from ≤ 1,000 pixels a map."""
        pixels = []
        for label in labels:
            flat = label.reshape(3, -1).T
            flat = flat[(flat != IGNORE).all(dim=1)]
            pixels.append(flat[:: max(1, len(flat) // 1000)])
        vectors = torch.cat(pixels).double()
        centre = F.normalize(vectors.mean(dim=0), dim=0)
        for _ in range(WEISZFELD_STEPS):
            cosines = vectors @ centre
            tangents = vectors - cosines[:, None] * centre
            lengths = tangents.norm(dim=1).clamp(min=1e-9)
            angles = torch.atan2(lengths, cosines).clamp(min=1e-3)
            # Each vector pulls along its great circle with unit force; 1/angle is Weiszfeld's step size.
            step = (tangents / lengths[:, None]).sum(dim=0) / (1 / angles).sum()
            centre = F.normalize(centre + step, dim=0)
        return centre.float()[None]

    def to_file(self, prediction: np.ndarray) -> np.ndarray:
        """255 (n + 1) / 2 as RGB, rounded: what the archives' readers take for normals."""
        return (127.5 * (prediction + 1)).round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)

    def colour(self, prediction: np.ndarray) -> np.ndarray:
        valid = (prediction != IGNORE).all(axis=0)
        colours = ((prediction + 1) * 127.5).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
        return np.where(valid[..., None], colours, IGNORED)

    def key(self, maps: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
        """Surfaces that face along the axes."""
        colours = {name: self.colour(np.reshape(axis, (3, 1, 1)))[0, 0] for name, axis in AXES.items()}
        return colours | super().key(maps)

"""The F-measures of boundaries as a metric whose state is summed over processes."""

from typing import Literal

import numpy as np
import torch
from torchmetrics import Metric

from sak.metrics.boundary.evaluation import PROTOCOLS, average_precision, evaluate, f_measure

PADDING = 255


class BoundaryF(Metric):
    """ods_f, ois_f and ap in percent, as `evaluate` defines them.

    Each image is matched when it comes; what is kept are sums of its counts, over all thresholds and at its best.
    Legend: B batch, H, W image, K thresholds.

    Args:
        max_dist: largest distance of a pair as a share of the image's diagonal; 0.0075 on PASCAL, 0.011 on NYUD.
        nms: "sak" or "invpt", the protocol.
        workers: processes that share the images of a batch; worth it for images much larger than 100 pixels.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False

    def __init__(self, max_dist: float, nms: Literal["sak", "invpt"] = "sak", workers: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.max_dist = max_dist
        self.nms = nms
        self.workers = workers
        # Of count, sum_r and sum_p.
        num_thresholds = len(PROTOCOLS[nms].thresholds)
        self.add_state("pooled", torch.zeros(3, num_thresholds, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("at_best", torch.zeros(3, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probability: torch.Tensor, boundaries: torch.Tensor) -> None:
        """Both (B, 1, H, W): probability in [0, 1]; boundaries 1, 0, or 255 on the padding, which is cut off."""
        maps = (255 * probability.detach().float()).to(torch.uint8)[:, 0].cpu().numpy()  # truncated, as published
        truths = boundaries[:, 0].cpu().numpy()
        cut = [
            (image[window], truth[window] == 1)
            for image, truth in zip(maps, truths, strict=True)
            if (window := content_window(truth)) is not None
        ]
        if not cut:
            return
        result = evaluate(*zip(*cut, strict=True), self.max_dist, self.nms, workers=self.workers)
        self.pooled += torch.from_numpy(result.pooled).to(self.pooled.device)
        self.at_best += torch.from_numpy(result.at_best).to(self.at_best.device)

    def compute(self) -> dict[str, torch.Tensor]:
        """{"ods_f", "ois_f", "ap"} in percent."""
        pooled, at_best = self.pooled.cpu().numpy(), self.at_best.cpu().numpy()
        values = {"ods_f": f_measure(pooled).max(), "ois_f": f_measure(at_best), "ap": average_precision(pooled)}
        return {name: torch.tensor(100 * float(value)) for name, value in values.items()}


def content_window(truth: np.ndarray) -> tuple[slice, slice] | None:
    """The smallest window of a map (H, W) that holds all that is not padding; None where there is nothing else."""
    rows, columns = np.nonzero(truth != PADDING)
    if not rows.size:
        return None
    return np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]

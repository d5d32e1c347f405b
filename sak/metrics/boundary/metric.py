"""The F-measures of boundaries as a metric whose state is reduced over processes."""

from typing import Literal

import numpy as np
import torch
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from sak.metrics.boundary.evaluation import PROTOCOLS, Result, evaluate

PADDING = 255


class BoundaryF(Metric):
    """ods_f, ois_f and ap in percent; keeps the counts of each image, not its pixels.

    Args:
        max_dist: largest distance of a pair as a share of the image's diagonal; 0.0075 on PASCAL, 0.011 on NYUD.
        nms: "sak" or "invpt", the protocol.
        workers: threads that share the images of a batch.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False

    def __init__(self, max_dist: float, nms: Literal["sak", "invpt"] = "sak", workers: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.max_dist = max_dist
        self.nms = nms
        self.workers = workers
        self.add_state("counts", [], dist_reduce_fx="cat")  # int64 (N, 3, K): count, sum_r, sum_p

    def update(self, probability: torch.Tensor, boundaries: torch.Tensor) -> None:
        """Both (B, 1, H, W): probability in [0, 1]; boundaries 1, 0, or 255 on the padding, which is cut off."""
        maps = (255 * probability.detach().float()).to(torch.uint8)[:, 0].cpu().numpy()  # truncated, as published
        truths = boundaries[:, 0].cpu().numpy()
        windows = [unpadded(truth) for truth in truths]
        result = evaluate(
            [image[window] for image, window in zip(maps, windows, strict=True)],
            [truth[window] == 1 for truth, window in zip(truths, windows, strict=True)],
            self.max_dist,
            self.nms,
            workers=self.workers,
        )
        counts = np.stack([result.count, result.sum_r, result.sum_p], axis=1)
        self.counts.append(torch.from_numpy(counts).to(self.device))

    def result(self) -> Result:
        """All counts so far; after a reduction over processes, those of all of them."""
        thresholds = np.array(PROTOCOLS[self.nms].thresholds)
        counts = dim_zero_cat(self.counts) if len(self.counts) else torch.zeros(0, 3, len(thresholds))
        count, sum_r, sum_p = counts.cpu().numpy().transpose(1, 0, 2)
        return Result(thresholds, count, sum_r, sum_p, self.nms)

    def compute(self) -> dict[str, torch.Tensor]:
        """{"ods_f", "ois_f", "ap"} in percent."""
        result = self.result()
        return {name: torch.tensor(100 * getattr(result, name)) for name in ("ods_f", "ois_f", "ap")}


def unpadded(truth: np.ndarray) -> tuple[slice, slice]:
    """The window of a map (H, W) that holds all that is not padding."""
    inside = truth != PADDING
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not rows.size:
        return slice(0, 0), slice(0, 0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)

"""The F-measures of boundaries as a metric whose state is summed over processes."""

from collections import deque
from concurrent.futures import Future
from typing import Literal

import numpy as np
import torch
from torchmetrics import Metric

from sak.labels import IGNORE
from sak.metrics.boundary.evaluation import PROTOCOLS, Result, average_precision, evaluate, f_measure
from sak.metrics.boundary.workers import process_pool

WAITING_PER_WORKER = 8  # images that are handed over before the caller has to wait


class BoundaryF(Metric):
    """ods_f, ois_f and ap in percent, as `evaluate` defines them.

    What is kept are sums of every image's counts, over all thresholds and at its best. With workers, ``update`` hands
    its images over and returns, so that matching goes on beside the caller's work; ``compute`` waits for the rest.
    Legend: B batch, H, W image, K thresholds.

    Args:
        max_dist: largest distance of a pair as a share of the image's diagonal; 0.0075 on PASCAL, 0.011 on NYUD.
        nms: "sak" or "invpt", the protocol.
        workers: processes that match beside this one; worth it for images much larger than 100 pixels. With 0 the
            calling process does the work itself.
    """

    pooled: torch.Tensor
    at_best: torch.Tensor

    def __init__(self, max_dist: float, nms: Literal["sak", "invpt"] = "sak", workers: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.max_dist = max_dist
        self.nms = nms
        self.workers = workers
        self._waiting: deque[Future[Result]] = deque()
        # Of count, sum_r and sum_p.
        num_thresholds = len(PROTOCOLS[nms].thresholds)
        self.add_state("pooled", torch.zeros(3, num_thresholds, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("at_best", torch.zeros(3, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probability: torch.Tensor, boundaries: torch.Tensor) -> None:
        """Both (B, 1, H, W): probability in [0, 1]; boundaries 1, 0, or 255 on the padding, which is cut off."""
        maps = (255 * probability.detach().float()).to(torch.uint8)[:, 0].cpu().numpy()  # truncated, as published
        truths = boundaries[:, 0].cpu().numpy()
        for image, truth in zip(maps, truths, strict=True):
            if (window := content_window(truth)) is None:
                continue
            job = [image[window]], [truth[window] == 1], self.max_dist, self.nms
            if self.workers:
                self._waiting.append(process_pool(self.workers).submit(evaluate, *job))
                self._settle(WAITING_PER_WORKER * self.workers)
            else:
                self._add(evaluate(*job))

    def _add(self, result: Result) -> None:
        self.pooled += torch.from_numpy(result.pooled).to(self.pooled.device)
        self.at_best += torch.from_numpy(result.at_best).to(self.at_best.device)

    def _settle(self, left: int = 0) -> None:
        """Add what the workers found, until no more than `left` images are with them."""
        while len(self._waiting) > left:
            self._add(self._waiting.popleft().result())

    def sync(self, *args, **kwargs) -> None:  # comes before every compute, and adds up the processes' states
        self._settle()
        super().sync(*args, **kwargs)

    def reset(self) -> None:
        self._waiting.clear()
        super().reset()

    def compute(self) -> dict[str, torch.Tensor]:
        """{"ods_f", "ois_f", "ap"} in percent."""
        pooled, at_best = self.pooled.cpu().numpy(), self.at_best.cpu().numpy()
        values = {"ods_f": f_measure(pooled).max(), "ois_f": f_measure(at_best), "ap": average_precision(pooled)}
        return {name: torch.tensor(100 * float(value)) for name, value in values.items()}


def content_window(truth: np.ndarray) -> tuple[slice, slice] | None:
    """The smallest window of a map (H, W) that holds all that is not padding; None where there is nothing else."""
    rows, columns = np.nonzero(truth != IGNORE)
    if not rows.size:
        return None
    return np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]

"""Protocols, counts per image, and the F-measures of a set."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from sak.errors import UserError
from sak.metrics.boundary.matching import match
from sak.metrics.boundary.nms import suppress_non_maxima
from sak.metrics.boundary.thinning import thin as thin_masks
from sak.metrics.boundary.workers import process_pool
from sak.progress import progress_bar


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a map of probabilities becomes thin boundaries; `suppress_non_maxima` explains `reach` and `blur`."""

    reach: int
    blur: int
    as_uint8: bool  # whether the ridges are stored in 8 bits before they are compared
    compare: Literal["ge", "gt"]
    thresholds: tuple[float, ...]


HUNDREDTHS = tuple(step / 100 for step in range(1, 100))
PROTOCOLS = {
    # SAK and PRISM.
    "sak": Protocol(reach=4, blur=1, as_uint8=True, compare="ge", thresholds=HUNDREDTHS),
    # InvPT, TaskPrompter and most papers before them.
    "invpt": Protocol(reach=1, blur=0, as_uint8=False, compare="gt", thresholds=(0.001, *HUNDREDTHS, 0.999)),
}


def boundary_map(labels: np.ndarray) -> np.ndarray:
    """bool (H, W): the thinned boundaries between the regions of a label map (H, W) of any values.

    A pixel lies on a boundary if it differs from its neighbour to the right, below, or diagonally below to the right.
    """
    edges = np.zeros(labels.shape, dtype=bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    edges[:-1, :-1] |= labels[:-1, :-1] != labels[1:, 1:]
    return thin_masks(edges)


@dataclasses.dataclass(frozen=True)
class Result:
    """Counts of every image at every threshold, and the F-measures that follow from them, all in 0..1.

    Attributes:
        thresholds: (K,).
        count: int64 (N, K), pairs of a predicted and a true boundary pixel.
        sum_r: int64 (N, K), true boundary pixels.
        sum_p: int64 (N, K), predicted boundary pixels.
        protocol: "sak", "invpt", or "none" without suppression.
    """

    thresholds: np.ndarray
    count: np.ndarray
    sum_r: np.ndarray
    sum_p: np.ndarray
    protocol: str

    @property
    def ods_f(self) -> float:
        """The best F of one threshold for the whole set, not interpolated between thresholds."""
        return float(f_measure(self.pooled).max())

    @property
    def ois_f(self) -> float:
        """F of the counts at each image's own best threshold."""
        return float(f_measure(self.at_best))

    @property
    def ap(self) -> float:
        """Area under the curve of precision over recall, see `average_precision`."""
        return average_precision(self.pooled)

    @property
    def counts(self) -> np.ndarray:
        """int64 (3, N, K): count, sum_r and sum_p."""
        return np.stack([self.count, self.sum_r, self.sum_p])

    @property
    def pooled(self) -> np.ndarray:
        """int64 (3, K): the counts, summed over images."""
        return self.counts.sum(axis=1)

    @property
    def at_best(self) -> np.ndarray:
        """int64 (3,): the counts of every image at its best threshold (the first of equals), summed over images."""
        best = np.round(f_measure(self.counts), 6).argmax(axis=1)
        return self.counts[:, np.arange(len(best)), best].sum(axis=1)


def precision_recall(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both (...), from counts (3, ...): count, sum_r, sum_p.

    Without true pixels recall is 1, without predicted ones precision is 1; the other of the two is then 0.
    """
    count, sum_r, sum_p = counts
    precision = np.where(sum_p == 0, 1.0, count / np.maximum(sum_p, 1))
    recall = np.where((sum_r == 0) & (sum_p > 0), 1.0, count / np.maximum(sum_r, 1))
    return precision, recall


def f_measure(counts: np.ndarray) -> np.ndarray:
    """Harmonic mean of precision and recall, from (3, ...): count, sum_r, sum_p; 0 where both are 0."""
    precision, recall = precision_recall(counts)
    return 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)


def average_precision(pooled: np.ndarray) -> float:
    """Mean of precision, interpolated linearly at recall 0, 0.01, ..., 1 from (3, K), and 0 beyond the curve's ends."""
    precision, recall = precision_recall(pooled)
    recall, first = np.unique(recall, return_index=True)
    if recall.size < 2:
        return 0.0
    return float(np.interp(np.arange(101) / 100, recall, precision[first], left=0, right=0).sum() / 100)


def count_image(
    prediction: np.ndarray,
    truth: np.ndarray,
    max_dist: float,
    protocol: Protocol | None,
    thresholds: np.ndarray,
    compare: str,
    thin: bool,
) -> np.ndarray:
    """int64 (3, K): count, sum_r and sum_p of one image; arguments as in `evaluate`."""
    values = prediction.astype(np.float64) / 255
    if protocol is not None:
        values = suppress_non_maxima(prediction.astype(np.float32) / 255, protocol.reach, protocol.blur)
        if protocol.as_uint8:
            values = np.floor(values * 255 + np.float32(0.5)).astype(np.float64) / 255
    thresholds = thresholds.astype(values.dtype)
    reaches = np.greater_equal if compare == "ge" else np.greater

    # Thresholds between the same two values of the map select the same pixels: each selection is matched once.
    sizes = [np.count_nonzero(reaches(values, threshold)) for threshold in thresholds]
    _, first, which = np.unique(sizes, return_index=True, return_inverse=True)
    truth = truth.astype(bool)
    masks = reaches(values, thresholds[first, None, None])
    if thin:
        masks = thin_masks(masks)
    count = match(masks, truth, max_dist * np.hypot(*truth.shape))
    sum_p = masks.sum(axis=(1, 2))
    return np.stack([count[which], np.full(len(thresholds), truth.sum()), sum_p[which]])


def evaluate(
    predictions: Iterable[np.ndarray],
    truths: Iterable[np.ndarray],
    max_dist: float,
    nms: Literal["sak", "invpt"] | None = "sak",
    thin: bool = True,
    thresholds: Sequence[float] | None = None,
    compare: Literal["ge", "gt"] | None = None,
    workers: int = 1,
    progress: bool = False,
) -> Result:
    """Match predicted with true boundaries at every threshold.

    Args:
        predictions: uint8 (H, W) maps, 255 p truncated.
        truths: bool (H, W) maps of thin boundaries, as `boundary_map` draws them.
        max_dist: largest distance of a pair as a share of the image's diagonal; 0.0075 on PASCAL, 0.011 on NYUD.
        nms: the protocol of non-maximum suppression, or None to take the maps as they are.
        thin: whether predictions are thinned after each threshold.
        thresholds: of the probability; by default the protocol's, without suppression 0.01, ..., 0.99.
        compare: "ge" selects p >= t, "gt" p > t; by default as the protocol does, without suppression "ge".
        workers: processes that share the images; with one, the calling process does the work itself.
        progress: whether to show a bar.

    Raises:
        UserError: for an unknown protocol or comparison, and for maps that do not fit together.
    """
    if nms is not None and nms not in PROTOCOLS:
        raise UserError(f"There is no boundary protocol {nms!r}: known are {', '.join(PROTOCOLS)}, or none.")
    protocol = None if nms is None else PROTOCOLS[nms]
    if thresholds is None:
        thresholds = HUNDREDTHS if protocol is None else protocol.thresholds
    if compare is None:
        compare = "ge" if protocol is None else protocol.compare
    if compare not in ("ge", "gt"):
        raise UserError(f"There is no comparison {compare!r} with thresholds: known are ge (>=) and gt (>).")
    thresholds = np.asarray(thresholds, dtype=np.float64)

    predictions, truths = list(predictions), list(truths)
    for prediction, truth in zip(predictions, truths, strict=True):
        if prediction.dtype != np.uint8 or prediction.ndim != 2 or prediction.shape != truth.shape:
            raise UserError(
                f"Boundaries are evaluated on uint8 maps (height, width) of the truth's shape, not {prediction.dtype} "
                f"{prediction.shape} against {truth.shape}."
            )
    one = functools.partial(
        count_image, max_dist=max_dist, protocol=protocol, thresholds=thresholds, compare=compare, thin=thin
    )
    run = map if workers == 1 else process_pool(workers).map
    with progress_bar(len(truths), "boundaries", shown=progress) as bar:
        results = []
        for result in run(one, predictions, truths):
            results.append(result)
            bar.update()
    counts = np.array(results, dtype=np.int64).reshape(-1, 3, len(thresholds))
    count, sum_r, sum_p = counts.transpose(1, 0, 2)
    return Result(thresholds, count, sum_r, sum_p, nms or "none")

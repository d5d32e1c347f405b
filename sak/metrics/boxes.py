"""Boxes found against true ones. A box is (x1, y1, x2, y2), x to the right and y downwards, in any unit."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

Box = tuple[float, float, float, float]
THRESHOLD = 0.5  # of the IoU: a box that overlaps less with a true one is none of it


def iou(one: Sequence[Box], other: Sequence[Box]) -> np.ndarray:
    """float64 (N, M): intersection over union of each pair; 0 where both have no area."""
    a, b = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (one, other))
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def match(found: Sequence[Box], true: Sequence[Box], threshold: float = THRESHOLD) -> list[float]:
    """IoUs of as many pairs as can be made of boxes that overlap enough, each box in one at most; of these the best."""
    overlaps = iou(found, true)
    if not overlaps.size:
        return []
    enough = overlaps >= threshold
    # One more pair outweighs whatever overlap it may cost.
    rows, columns = linear_sum_assignment(np.where(enough, min(overlaps.shape) + overlaps, 0), maximize=True)
    return [float(overlaps[row, column]) for row, column in zip(rows, columns, strict=True) if enough[row, column]]


@dataclasses.dataclass
class BoxScores:
    """Counts that are added up over images; a class is matched with itself alone, letters' case apart."""

    found: int = 0
    true: int = 0
    matched: list[float] = dataclasses.field(default_factory=list)  # IoUs

    @classmethod
    def of(cls, found: Mapping[str, Sequence[Box]], true: Mapping[str, Sequence[Box]]) -> "BoxScores":
        """Those of one image, {class: boxes}."""
        one, other = _by_class(found), _by_class(true)
        pairs = [overlap for name in one.keys() & other.keys() for overlap in match(one[name], other[name])]
        return cls(sum(map(len, one.values())), sum(map(len, other.values())), sorted(pairs))

    def __add__(self, other: "BoxScores") -> "BoxScores":
        return BoxScores(self.found + other.found, self.true + other.true, self.matched + other.matched)

    @property
    def precision(self) -> float:
        """1 where nothing was found: nothing of it is wrong."""
        return len(self.matched) / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        return len(self.matched) / self.true if self.true else 1.0

    @property
    def f1(self) -> float:
        """1 where there is nothing, and nothing was found."""
        return 2 * len(self.matched) / (self.found + self.true) if self.found + self.true else 1.0

    @property
    def mean_iou(self) -> float:
        """Of the matched pairs; 0 if there are none."""
        return float(np.mean(self.matched)) if self.matched else 0.0


def _by_class(boxes: Mapping[str, Sequence[Box]]) -> dict[str, list[Box]]:
    merged: dict[str, list[Box]] = {}
    for name, of_class in boxes.items():
        merged.setdefault(name.lower(), []).extend(of_class)
    return merged

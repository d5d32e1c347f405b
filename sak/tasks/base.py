"""What a task is: one file beside this one holds all that the rest of the library needs to know about it.

Shapes: B batch, C channels of the task, H,W image. In every label 255 means: ignore.
"""

import abc
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torchmetrics
from torch import Tensor

from sak.labels import IGNORE
from sak.tasks.description import Kind, TaskDescription, voc_palette

HIGHER, LOWER = "higher", "lower"
IGNORED = np.full(3, 224, np.uint8)  # in pictures: light grey, which neither scales nor classes have


@dataclass(frozen=True)
class Scale:
    """How a map of numbers is coloured.

    Attributes:
        colours: a colour map of matplotlib's without greys.
        low, high: the numbers at its ends; what lies beyond is drawn as they are.
        label: what the numbers are, and their unit.
    """

    colours: str
    low: float
    high: float
    label: str

    def colour(self, values: np.ndarray) -> np.ndarray:
        """Numbers (H, W), 255 = ignored -> uint8 (H, W, 3)."""
        share = (values.astype(np.float32) - self.low) / (self.high - self.low)
        rgb = matplotlib.colormaps[self.colours](share.clip(0, 1), bytes=True)[..., :3]
        return np.where((values == IGNORE)[..., None], IGNORED, rgb)


class Task(abc.ABC):
    """One task, as a data set describes it.

    Class attributes:
        name: the key of its label in a sample and of its prediction in ``StudentOutput.predictions``.
        kind: of its labels.
        weight: of its loss in the sum over tasks.
        measures: {metric: whether higher or lower is better}; the first one is the headline.
        units: what the metrics are measured in.
        digits: behind the point, where metrics are shown.
        files: where the labels of a task of one's own lie, as ``Archive.FILES``; (): where the data set looks for them.
        default: what is said of the labels where the data set says nothing of them; None: it must.
        scale: of the pictures, where the labels are numbers.
    """

    name: str
    kind: Kind
    weight: float
    measures: Mapping[str, str]
    units: str
    digits: int = 2
    files: tuple[tuple[str, ...], ...] = ()
    default: TaskDescription | None = None
    scale: Scale | None = None

    @classmethod
    def headline(cls) -> tuple[str, bool]:
        """The metric that stands for the task in Δm, and whether more of it is better."""
        metric, direction = next(iter(cls.measures.items()))
        return metric, direction == HIGHER

    def __init__(self, description: TaskDescription):
        self.description = description

    @property
    def channels(self) -> int:
        """C"""
        return self.description.channels

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the labels; () where the labels are no classes, or nobody named them."""
        return self.description.classes

    @staticmethod
    def read(*paths: Path) -> np.ndarray:
        """The label in these files, of a task of one's own: (H, W) of classes, (H, W, C) float32 of all else.

        255 where it is to be ignored. Unless a task has this function, its labels are read as its ``kind`` is stored.

        Raises:
            UserError: a file is not what it should be.
        """
        raise NotImplementedError

    @abc.abstractmethod
    def loss(self, output: Tensor, label: Tensor) -> Tensor:
        """Raw output (B, C, H, W) and label -> the unweighted loss, a float32 scalar; 0 where all is ignored."""

    @abc.abstractmethod
    def predict(self, output: Tensor) -> Tensor:
        """Raw output (B, C, H, W) -> what the metric takes and ``colour`` draws."""

    @abc.abstractmethod
    def new_metric(self, workers: int = 0) -> torchmetrics.Metric:
        """A metric that is updated with (``predict``'s result, ``truth``'s) and computes what ``measured`` names.

        It may use that many processes beside the calling one.
        """

    def truth(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What the metric compares predictions with."""
        return batch[self.name]

    def measured(self, metric: torchmetrics.Metric) -> dict[str, float]:
        """{metric: value} in ``units``, the headline first."""
        value = metric.compute()
        values = value if isinstance(value, Mapping) else {self.headline()[0]: value}
        return {name: float(values[name]) for name in self.measures}

    @abc.abstractmethod
    def constants(self, labels: Iterable[Tensor]) -> Tensor:
        """Labels of a whole set -> (K, C) raw outputs, one of which is the best constant prediction on that set."""

    @abc.abstractmethod
    def to_file(self, prediction: np.ndarray) -> np.ndarray:
        """``predict``'s result for one image, as the field stores it: uint8 (H, W) or (H, W, 3), or float32 (H, W)."""

    @abc.abstractmethod
    def colour(self, prediction: np.ndarray) -> np.ndarray:
        """A prediction or label of one image, channels first or (H, W) -> uint8 (H, W, 3) for a picture."""

    def key(self, maps: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
        """{what: its colour, uint8 (3,)} of what no ``scale`` explains in the pictures of these maps."""
        return {"ignored": IGNORED} if any((values == IGNORE).any() for values in maps) else {}


def palette(description: TaskDescription) -> np.ndarray:
    """uint8 (256, 3): a colour for each class; the rest, the ignored too, is light grey."""
    colours = np.full((256, 3), IGNORED, np.uint8)
    colours[: description.channels] = description.colours or voc_palette(description.channels)
    return colours

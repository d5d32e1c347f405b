"""What a data set says of a task that it has: its channels, and of labels that are classes their names and colours.

Nothing else of the library asks which data set it is: `sak.data` has these descriptions, bundles keep them.
"""

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sak.errors import UserError
from sak.labels import IGNORE

MOST_CLASSES = IGNORE  # labels are stored in 8 bits, of which one value is ignored


class Kind(enum.Enum):
    """What the labels of a task are, and so what happens to them where an image is flipped or scaled."""

    CLASSES = "classes"  # int64 (H, W): a number that has a name
    VECTORS = "vectors"  # float32 (C, H, W), x to the right: a flip negates x
    FIELD = "field"  # float32 (C, H, W): numbers that stay what they are
    DISTANCE = "distance"  # float32 (1, H, W): from the camera; what is seen larger is nearer
    BOUNDARY = "boundary"  # float32 (1, H, W): 1 on a line, 0 elsewhere


@dataclasses.dataclass(frozen=True)
class TaskDescription:
    """
    Attributes:
        channels: of the task's output; of classes their number.
        classes: their names, in the order of the labels; () where the labels are no classes, or nobody named them.
        colours: RGB in 0..255 of each class in pictures; () stands for those of PASCAL VOC.
        background: the class of all that has no class of its own, if there is one.
        ignore_empty: whether an image that shows nothing but background is ignored: it may not have been annotated.
        max_dist: of boundaries, how far a predicted pixel may be from a true one, as a share of the image's diagonal.

    Raises:
        UserError: classes and colours are not as many as the channels, or more than labels can tell apart.
    """

    channels: int
    classes: tuple[str, ...] = ()
    colours: tuple[tuple[int, int, int], ...] = ()
    background: int | None = None
    ignore_empty: bool = False
    max_dist: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= MOST_CLASSES:
            raise UserError(f"there are {self.channels} classes, but must be 1 to {MOST_CLASSES}")
        for what, given in (("names of classes", self.classes), ("colours", self.colours)):
            if given and len(given) != self.channels:
                raise UserError(f"there are {len(given)} {what} for {self.channels} classes: give as many")
        if twice := [name for name in self.classes if self.classes.count(name) > 1]:
            raise UserError(f"two classes are called {twice[0]!r}: give each a name of its own")
        for colour in self.colours:
            if len(colour) != 3 or not all(isinstance(part, int) and 0 <= part <= 255 for part in colour):
                raise UserError(f"the colour {list(colour)} is none: write [red, green, blue], each from 0 to 255")

    @classmethod
    def of_classes(
        cls, names: Sequence[str], colours: Sequence[Sequence[int]] = (), **others: Any
    ) -> "TaskDescription":
        """A description of labels that are these classes."""
        rgb = tuple((red, green, blue) for red, green, blue in colours)
        return cls(len(names), tuple(names), rgb, **others)

    def as_json(self) -> dict[str, Any]:
        """What is said of the labels but for the channels, as lists, numbers and text; what is not said is left out."""
        said = {
            "classes": list(self.classes),
            "colours": [list(colour) for colour in self.colours],
            "background": self.background,
            "ignore_empty": self.ignore_empty,
            "max_dist": self.max_dist,
        }
        return {key: value for key, value in said.items() if value is not None and value is not False and value != []}

    @classmethod
    def of_json(cls, channels: int, said: Mapping[str, Any]) -> "TaskDescription":
        """
        Raises:
            UserError: it is none that `as_json` gives.
        """
        fields = {field.name for field in dataclasses.fields(cls)} - {"channels"}
        try:
            given = {key: value for key, value in said.items() if key in fields}
            classes, colours = tuple(given.pop("classes", ())), given.pop("colours", ())
            rgb = tuple((int(red), int(green), int(blue)) for red, green, blue in colours)
            return cls(channels, classes, rgb, **given)
        except (TypeError, ValueError) as error:
            raise UserError(f"the description of a task's labels cannot be read ({error})") from None


def voc_palette(count: int) -> np.ndarray:
    """uint8 (count, 3): the colour map of PASCAL VOC."""
    colours = np.zeros((count, 3), np.uint8)
    for label in range(count):
        rest = label
        for shift in range(7, -1, -1):
            for channel in range(3):
                colours[label, channel] |= (rest >> channel & 1) << shift
            rest >>= 3
    return colours

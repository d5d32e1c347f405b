"""What is asked of the language model and how it answers: prompts, the conversation's template, and boxes as text.

After Vary-toy (arXiv 2401.12503, section 3.2). A box is (x1, y1, x2, y2) as shares of the image's width and height: x
to the right, y downwards, the second corner just outside. A string has it in thousandths, padded to three digits::

    person: [535, 544, 568, 591], [010, 020, 300, 1000];
    dog: [100, 200, 300, 400].
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sak.errors import UserError

Box = tuple[float, float, float, float]

READ = "Provide the OCR results of this image."
DETECT_ALL = "Detect all objects in this image"
MOST_BOXES = 30  # up to so many all objects are asked for; where there are more, those of some classes

# The template: USER: <img>…</img> prompt ASSISTANT: answer </s>
IMAGE_START, IMAGE_END = "<img>", "</img>"  # around the image's tokens
END = "</s>"  # ends the answer
USER, ASSISTANT = "USER: ", " ASSISTANT: "
PHRASES = (USER, ASSISTANT, READ, DETECT_ALL)  # that are the same beside many images
SCALE = 1000  # of the numbers in a box

_BOX = r"\[\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\]"


def detect(classes: Sequence[str]) -> str:
    """The prompt for the objects of these classes."""
    return f"Detect {', '.join(classes)} in this image"


def refer(expression: str) -> str:
    """The prompt for the one object that an expression is about, as "the red ball left of the bottle"."""
    return f"Locate {expression} in this image"


def around_image(prompt: str) -> tuple[str, str]:
    """The template before and after the image's tokens; the answer and `END` follow.

    Raises:
        UserError: the prompt holds a mark of the template, which would end the image or the answer early.
    """
    for mark in (IMAGE_START, IMAGE_END, END):
        if mark in prompt:
            raise UserError(f"the prompt holds {mark}, which marks where an image or an answer ends: leave it out")
    return f"{USER}{IMAGE_START}", f"{IMAGE_END} {prompt}{ASSISTANT}"


def box_string(objects: Mapping[str, Sequence[Box]]) -> str:
    """{class: its boxes} as text; "." where there is none.

    Raises:
        ValueError: a box reaches out of the image, or is none.
    """
    lines = [f"{name}: {', '.join(map(_written, boxes))}" for name, boxes in objects.items() if boxes]
    return ";\n".join(lines) + "."


def one_box(box: Box) -> str:
    """The answer to `refer`."""
    return f"{_written(box)}."


class Parsed(NamedTuple):
    """
    Attributes:
        objects: {class: boxes}; of boxes without a class under "".
        malformed: pieces that are neither a class nor a box in the image with a positive area.
    """

    objects: dict[str, list[Box]]
    malformed: int

    @property
    def boxes(self) -> list[Box]:
        return [box for boxes in self.objects.values() for box in boxes]


def parse_boxes(text: str) -> Parsed:
    """Read what a model wrote for boxes: whatever can be read is, and the rest is counted.

    Spaces, line breaks and the padding do not matter, nor whether the end is there. A class that is named twice has
    the boxes of both places.
    """
    objects: dict[str, list[Box]] = {}
    malformed = 0
    for part in re.split(r";", text):
        part = part.strip().removesuffix(".").strip()
        if not part:
            continue
        name, _, rest = part.partition(":") if ":" in part.partition("[")[0] else ("", "", part)
        name = " ".join(name.split())
        boxes = []
        for match in re.finditer(_BOX, rest):
            x1, y1, x2, y2 = (int(number[:9]) for number in match.groups())
            if x1 < x2 <= SCALE and y1 < y2 <= SCALE:
                boxes.append((x1 / SCALE, y1 / SCALE, x2 / SCALE, y2 / SCALE))
            else:
                malformed += 1
        # what is left when boxes and the commas between them are taken away
        left = [piece for piece in re.split(_BOX.replace("(", "(?:"), rest) if piece.strip(" ,\n\t")]
        malformed += len(left) or (not boxes and not re.search(_BOX, rest))
        if boxes:
            objects.setdefault(name, []).extend(boxes)
    return Parsed(objects, malformed)


def is_box(box: Box) -> bool:
    """Whether a box lies in the image, and has an area that its string can show."""
    x1, y1, x2, y2 = box
    if min(x1, y1) < 0 or max(x2, y2) > 1:
        return False
    left, top, right, bottom = _whole(box)
    return left < right and top < bottom


def _written(box: Box) -> str:
    if not is_box(box):
        raise ValueError(f"{box} is no box in the image: (x1, y1, x2, y2) are shares of its width and height, x1 < x2")
    return "[" + ", ".join(f"{number:03d}" for number in _whole(box)) + "]"


def _whole(box: Box) -> list[int]:
    return [round(number * SCALE) for number in box]

"""Charts of small random tables, drawn here, with a question whose answer the table knows."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from sak.vocabulary.data.fonts import find_fonts, font
from sak.vocabulary.data.source import Drawn
from sak.vocabulary.data.words import WORDS, is_held_out

FINER = 2  # lines and bars are drawn so many times as large and shrunk; text is not
BARS = (3, 5)
HIGHEST = 100  # of the axis
LONGEST_LABEL = 5  # letters
PALETTE = ((70, 110, 180), (205, 95, 60), (90, 150, 90), (150, 100, 170), (200, 160, 50))
KINDS = ("bars", "columns", "line")


class Table(NamedTuple):
    labels: tuple[str, ...]
    values: tuple[int, ...]


class Charts:
    """
    Args:
        side: pixels, height = width.
    """

    def __init__(self, side: int, val: bool):
        self.side, self.val = side, val
        self.fonts = find_fonts()
        self.labels = [word for word in WORDS if len(word) <= LONGEST_LABEL]

    def __len__(self) -> int:
        return 0

    def sample(self, number: int, rng: np.random.Generator) -> Drawn:
        while True:
            count = int(rng.integers(BARS[0], BARS[1] + 1))
            labels = rng.choice(self.labels, count, replace=False).tolist()
            # No two are so close that the highest or lowest could not be told.
            values = (rng.permutation(np.arange(5, HIGHEST + 1, 5))[:count] - rng.integers(0, 3, count)).tolist()
            table = Table(tuple(labels), tuple(values))
            question, answer = ask(table, rng)
            if is_held_out(f"{table} {question}") == self.val:
                return Drawn(self._draw(table, rng), question, answer)

    def _draw(self, table: Table, rng: np.random.Generator) -> np.ndarray:
        kind = KINDS[rng.integers(len(KINDS))]
        side = self.side
        letters = font(self.fonts[rng.integers(len(self.fonts))], max(9, side // 13))
        colour = PALETTE[rng.integers(len(PALETTE))]
        height = letters.size
        widest = max(letters.getlength(label) for label in table.labels)
        axis = letters.getlength(str(HIGHEST))
        if (widest + 3) * len(table.labels) > side - axis - 8:
            kind = "bars"  # below the others there is no room for these labels
        across = kind == "bars"  # they lie, and labels stand at their left
        left = round(widest if across else axis) + 4
        right, top, bottom = side - round(axis / 2) - 3, 4, side - height - 6
        if not across:
            right, top = side - 4, height // 2 + 2
        count = len(table.labels)
        shapes = Image.new("RGB", (side * FINER,) * 2, (255, 255, 255))
        pen = ImageDraw.Draw(shapes)

        def along(value: float) -> float:
            """The pixel of a value on its axis."""
            return left + (right - left) * value / HIGHEST if across else bottom - (bottom - top) * value / HIGHEST

        def slot(index: int) -> tuple[float, float]:
            start, length = (top, bottom - top) if across else (left, right - left)
            return start + length * index / count, start + length * (index + 1) / count

        def line(*points: tuple[float, float], fill: tuple[int, int, int], width: int = 1) -> None:
            pen.line([(x * FINER, y * FINER) for x, y in points], fill=fill, width=width * FINER)

        for tick in range(0, HIGHEST + 1, HIGHEST // 4):
            place = along(tick)
            ends = ((place, top), (place, bottom)) if across else ((left, place), (right, place))
            line(*ends, fill=(215, 215, 215))
        for index, value in enumerate(table.values):
            start, end = slot(index)
            inset = (end - start) * 0.2
            if across:
                corners = (left, start + inset, along(value), end - inset)
            else:
                corners = (start + inset, along(value), end - inset, bottom)
            if kind != "line":
                pen.rectangle([corner * FINER for corner in corners], fill=colour)
        if kind == "line":
            points = [(sum(slot(k)) / 2, along(value)) for k, value in enumerate(table.values)]
            line(*points, fill=colour, width=2)
            for x, y in points:
                pen.ellipse([part * FINER for part in (x - 2.5, y - 2.5, x + 2.5, y + 2.5)], fill=colour)
        line((left, top), (left, bottom), (right, bottom), fill=(60, 60, 60))

        image = shapes.reduce(FINER)
        pen = ImageDraw.Draw(image)
        for tick in range(0, HIGHEST + 1, HIGHEST // 2):
            place, anchor = ((along(tick), bottom + 3), "ma") if across else ((left - 3, along(tick)), "rm")
            pen.text(place, str(tick), font=letters, fill=(40, 40, 40), anchor=anchor)
        for index, label in enumerate(table.labels):
            middle = sum(slot(index)) / 2
            place, anchor = ((left - 3, middle), "rm") if across else ((middle, bottom + 3), "ma")
            pen.text(place, label, font=letters, fill=(0, 0, 0), anchor=anchor)
        return np.asarray(image)


def ask(table: Table, rng: np.random.Generator) -> tuple[str, str]:
    """(question, answer)."""
    labels, values = table
    one, other = rng.choice(len(labels), 2, replace=False).tolist()
    match rng.integers(5):
        case 0:
            return "Which has the highest value?", labels[int(np.argmax(values))]
        case 1:
            return "Which has the lowest value?", labels[int(np.argmin(values))]
        case 2:
            return "How many values are shown?", str(len(values))
        case 3:
            return f"What is the difference between {labels[one]} and {labels[other]}?", str(
                abs(values[one] - values[other])
            )
    return f"What is the value of {labels[one]}?", str(values[one])

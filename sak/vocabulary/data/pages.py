"""Pages of text, rendered: font, size, columns, ink and paper, light, slight rotation, noise.

Every line that is on a page is on it whole, and the answer is these lines in the order of reading: column by column.
"""

import bisect
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from sak.config.vocabulary import PageConfig
from sak.errors import UserError
from sak.vocabulary.data.fonts import characters, find_fonts, font
from sak.vocabulary.data.source import FULL, Drawn, Growth, grown
from sak.vocabulary.data.texts import Passages
from sak.vocabulary.data.words import random_line
from sak.vocabulary.prompts import READ

FIRST = (1, 2)  # characters in a line where it begins to grow, at least and at most
LEAST = 4  # characters that any page has room for
# Letters are nearly as large as their lines have room for: small ones on an empty page take far longer to be found.
LARGE, LARGEST = 0.75, 0.7  # of the largest size that fits; of the page's side
LEADING = (1.2, 1.55)  # from line to line, of the font's size
PAPER, INK = (195, 255), (0, 80)  # grey levels


class Layout(NamedTuple):
    """Where lines go on a page, in pixels."""

    font_file: str
    size: int
    leading: int
    columns: int
    left: int  # and right, above and below
    gap: int  # between columns
    width: int  # of a column
    rows: int  # in a column

    def fits(self, line: str) -> bool:
        return font(self.font_file, self.size).getlength(line) <= self.width

    def holds(self, lines: Sequence[str]) -> bool:
        return len(lines) <= self.rows * self.columns and all(map(self.fits, lines))


class TextPages:
    """
    Args:
        side: pixels, height = width.
        growth: of random lines, from `FIRST` characters to what the settings say.

    Raises:
        UserError: texts or fonts are missing, or the smallest font leaves no room for a word.
    """

    def __init__(self, settings: PageConfig, side: int, val: bool, growth: Growth = FULL):
        self.settings, self.side, self.val, self.growth = settings, side, val, growth
        self.fonts = find_fonts(settings.fonts)
        self.passages = None if settings.texts is None else Passages(settings.texts, val)
        smallest = settings.font_size[0]
        for file in self.fonts:
            layout = self._layout(file, smallest, LEADING[1], settings.columns)
            if layout.rows < 1 or not layout.fits("w" * LEAST):
                raise UserError(
                    f"vocabulary.data.pages.font_size begins at {smallest}, but a page of {side} pixels with "
                    f"{settings.columns} columns has no room for {LEAST} such letters: choose smaller fonts"
                )

    def __len__(self) -> int:
        return 0 if self.passages is None else len(self.passages)

    def sample(self, number: int, rng: np.random.Generator) -> Drawn:
        smallest, largest = self.settings.font_size
        file = self.fonts[rng.integers(len(self.fonts))]
        columns, leading = int(rng.integers(1, self.settings.columns + 1)), float(rng.uniform(*LEADING))
        lines: list[str] = []
        if rng.random() < self.settings.empty:
            layout = self._layout(file, smallest, leading, columns)
        elif self.passages is None:
            lines = self._random_lines(number, rng, self._layout(file, smallest, leading, columns))
            layout = self._largest(rng, file, leading, columns, lines)
        else:
            layout = self._layout(file, int(rng.integers(smallest, largest + 1)), leading, columns)
            lines = self._lines_of_a_passage(number, rng, layout)
        return Drawn(self._draw(rng, layout, lines), READ, "\n".join(lines))

    def _layout(self, file: str, size: int, leading: float, columns: int) -> Layout:
        # What turns by so much moves by so much at the page's edge.
        turned = math.ceil(self.side / 2 * math.sin(math.radians(self.settings.rotation)))
        left = turned + max(2, self.side // 50)
        gap = size
        width = (self.side - 2 * left - (columns - 1) * gap) // columns
        step = max(size, round(size * leading))
        return Layout(file, size, step, columns, left, gap, width, max(0, (self.side - 2 * left) // step))

    def _largest(
        self, rng: np.random.Generator, file: str, leading: float, columns: int, lines: Sequence[str]
    ) -> Layout:
        """Of the layouts that hold the lines one of the largest letters; the smallest size does."""
        smallest, largest = self.settings.font_size
        sizes = range(smallest, max(smallest, min(largest, int(LARGEST * self.side))) + 1)
        count = bisect.bisect_left(
            sizes, True, lo=1, key=lambda size: not self._layout(file, size, leading, columns).holds(lines)
        )
        most = sizes[count - 1]
        size = int(rng.integers(max(smallest, math.ceil(LARGE * most)), most + 1))
        return self._layout(file, size, leading, columns)

    def _lines_of_a_passage(self, number: int, rng: np.random.Generator, layout: Layout) -> list[str]:
        """The first lines of it that the page has room for; what the font lacks is left out."""
        assert self.passages is not None
        least, most = self.settings.lines
        wanted = min(int(rng.integers(least, most + 1)), layout.rows * layout.columns)
        known = characters(layout.font_file)
        text = "".join(letter for letter in self.passages[number] if letter in known)
        return wrap(text, layout.fits)[:wanted]

    def _random_lines(self, number: int, rng: np.random.Generator, layout: Layout) -> list[str]:
        """
        Args:
            layout: that of the smallest font.
        """
        part = grown(number, self.growth)
        fewest, most = self.settings.lines
        most = fewest if part < 1 else most
        wanted = min(int(rng.integers(fewest, most + 1)), layout.rows * layout.columns)
        ends = zip(FIRST, self.settings.characters, strict=True)
        shortest, longest = (min(first, last) + round(part * max(0, last - first)) for first, last in ends)
        return [self._line(rng, layout, shortest, longest) for _ in range(wanted)]

    def _line(self, rng: np.random.Generator, layout: Layout, least: int, most: int) -> str:
        while True:
            line = random_line(rng, least, most, self.val)
            if layout.fits(line):
                return line
            least, most = max(1, least - 1), max(LEAST, most - 1)

    def _draw(self, rng: np.random.Generator, layout: Layout, lines: list[str]) -> np.ndarray:
        settings, side = self.settings, self.side
        paper, ink = rng.integers(*PAPER, endpoint=True), rng.integers(*INK, endpoint=True)
        tint = rng.uniform(0.94, 1, 3)
        mask = Image.new("L", (side, side), 0)
        pen = ImageDraw.Draw(mask)
        chosen = font(layout.font_file, layout.size)
        rows = math.ceil(len(lines) / layout.columns)  # columns of one height
        widest = max((chosen.getlength(line) for line in lines), default=0)
        total = widest if layout.columns == 1 else side - 2 * layout.left
        free = (side - 2 * layout.left - total, side - 2 * layout.left - rows * layout.leading)
        x0, y0 = (layout.left + rng.uniform(0, settings.moved * max(0, room)) for room in free)
        for index, line in enumerate(lines):
            column, row = divmod(index, rows)
            x = x0 + column * (layout.width + layout.gap)
            pen.text((x, y0 + row * layout.leading), line, font=chosen, fill=255)
        angle = rng.uniform(-settings.rotation, settings.rotation)
        mask = mask.rotate(angle, resample=Image.Resampling.BICUBIC)
        cover = np.asarray(mask, np.float32)[..., None] / 255
        slope = rng.uniform(-0.06, 0.06, 2)
        place = np.linspace(-1, 1, side, dtype=np.float32)
        light = 1 + slope[0] * place[:, None, None] + slope[1] * place[None, :, None]
        page = (paper * tint * (1 - cover) + ink * cover) * light
        page += rng.normal(0, 255 * rng.uniform(0, settings.noise), (side, side, 1))
        return np.clip(page + 0.5, 0, 255).astype(np.uint8)


def wrap(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Words filled into lines as far as they fit; a word that is too wide for a line is broken."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        if fits(extended := f"{line} {word}".strip()):
            line = extended
            continue
        if line:
            lines.append(line)
        while not fits(word) and len(word) > 1:
            cut = next((n for n in range(len(word) - 1, 1, -1) if fits(word[:n])), 1)
            lines.append(word[:cut])
            word = word[cut:]
        line = word
    return [*lines, line] if line else lines

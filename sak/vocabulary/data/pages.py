"""Pages of text, rendered: font, size, columns, ink and paper, light, slight rotation, noise.

Every line that is on a page is on it whole, and the answer is these lines in the order of reading: column by column.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from sak.config.vocabulary import PageConfig
from sak.errors import UserError
from sak.vocabulary.data.fonts import characters, find_fonts, font
from sak.vocabulary.data.source import Drawn
from sak.vocabulary.data.texts import Passages
from sak.vocabulary.data.words import random_line
from sak.vocabulary.prompts import READ

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


class TextPages:
    """
    Args:
        side: pixels, height = width.

    Raises:
        UserError: texts or fonts are missing, or the smallest font leaves no room for a word.
    """

    def __init__(self, settings: PageConfig, side: int, val: bool):
        self.settings, self.side, self.val = settings, side, val
        self.fonts = find_fonts(settings.fonts)
        self.passages = None if settings.texts is None else Passages(settings.texts, val)
        if any(self._layout(file, settings.font_size[1], 1.0, settings.columns).rows < 1 for file in self.fonts):
            raise UserError(
                f"vocabulary.data.pages.font_size goes up to {settings.font_size[1]}, but a page has {side}"
            )

    def __len__(self) -> int:
        return 0 if self.passages is None else len(self.passages)

    def sample(self, number: int, rng: np.random.Generator) -> Drawn:
        settings = self.settings
        file = self.fonts[rng.integers(len(self.fonts))]
        size = int(rng.integers(settings.font_size[0], settings.font_size[1] + 1))
        columns = int(rng.integers(1, settings.columns + 1))
        layout = self._layout(file, size, rng.uniform(*LEADING), columns)
        lines = [] if rng.random() < settings.empty else self._lines(number, rng, layout)
        return Drawn(self._draw(rng, layout, lines), READ, "\n".join(lines))

    def _layout(self, file: str, size: int, leading: float, columns: int) -> Layout:
        # What turns by so much moves by so much at the page's edge.
        turned = math.ceil(self.side / 2 * math.sin(math.radians(self.settings.rotation)))
        left = turned + max(2, self.side // 50)
        gap = size
        width = (self.side - 2 * left - (columns - 1) * gap) // columns
        step = max(size, round(size * leading))
        return Layout(file, size, step, columns, left, gap, width, max(0, (self.side - 2 * left) // step))

    def _lines(self, number: int, rng: np.random.Generator, layout: Layout) -> list[str]:
        least, most = self.settings.lines
        wanted = min(int(rng.integers(least, most + 1)), layout.rows * layout.columns)
        if self.passages is not None:
            known = characters(layout.font_file)
            text = "".join(letter for letter in self.passages[number % len(self.passages)] if letter in known)
            return wrap(text, layout.fits)[:wanted]
        return [self._line(rng, layout) for _ in range(wanted)]

    def _line(self, rng: np.random.Generator, layout: Layout) -> str:
        least, most = self.settings.characters
        while True:
            line = random_line(rng, least, most, self.val)
            if layout.fits(line):
                return line
            least, most = max(1, least - 1), max(4, most - 1)  # a word of four letters fits on any page that is read

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
        x0 = layout.left + rng.uniform(0, max(0, side - 2 * layout.left - total))
        y0 = layout.left + rng.uniform(0, max(0, side - 2 * layout.left - rows * layout.leading))
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

"""Scenes of a few coloured things on a plain ground, drawn on the spot, without end, and known to the pixel.

A thing is a list of shapes in its own unit square, x to the right and y downwards, which they fill from side to side.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

from sak.vocabulary.data import words
from sak.vocabulary.data.objects import Object, Scene
from sak.vocabulary.data.source import FULL, Growth, grown
from sak.vocabulary.prompts import Box

FINER = 3  # drawn so many times as large and shrunk, for smooth outlines
SIZES = (0.18, 0.42)  # longer side, of the image's ...
FIRST_SIZES = (0.45, 0.75)  # ... and before scenes begin to grow
REPEATED = 0.25  # share of the things
MOST_COVERED = 0.1  # of the smaller of two things' boxes
GROUND = (150, 255)  # levels of red, green and blue
NOISE = 0.03  # largest standard deviation, of white = 1

COLOURS = {
    **{"red": (205, 40, 40), "green": (40, 140, 60), "blue": (45, 80, 200), "yellow": (225, 190, 20)},
    **{"orange": (235, 120, 25), "purple": (130, 60, 160), "black": (30, 30, 30), "brown": (115, 75, 40)},
}
Polygon = tuple[tuple[float, float], ...]


def _regular(count: int, *radii: float) -> Polygon:
    """Corners around a circle from its top, at radii that alternate, moved into the unit square."""
    turns = [2 * math.pi * k / count for k in range(count)]
    corners = [(r * math.sin(t), -r * math.cos(t)) for k, t in enumerate(turns) for r in [radii[k % len(radii)]]]
    left, top = (min(values) for values in zip(*corners, strict=True))
    right, bottom = (max(values) for values in zip(*corners, strict=True))
    return tuple(((x - left) / (right - left), (y - top) / (bottom - top)) for x, y in corners)


# {name: (width / height, its shapes)}
THINGS: dict[str, tuple[float, tuple[Polygon, ...]]] = {
    "ball": (1.0, (_regular(48, 1),)),
    "box": (1.25, (((0, 0), (1, 0), (1, 1), (0, 1)),)),
    "star": (1.05, (_regular(10, 1, 0.42),)),
    "bottle": (
        0.4,
        (((0.3, 0), (0.7, 0), (0.7, 0.3), (1, 0.45), (1, 1), (0, 1), (0, 0.45), (0.3, 0.3)),),
    ),
    "tree": (0.75, (((0.5, 0), (1, 0.75), (0, 0.75)), ((0.4, 0.74), (0.6, 0.74), (0.6, 1), (0.4, 1)))),
    "cross": (
        1.0,
        (((0.36, 0), (0.64, 0), (0.64, 1), (0.36, 1)), ((0, 0.36), (1, 0.36), (1, 0.64), (0, 0.64))),
    ),
    "house": (
        1.0,
        (
            ((0.5, 0), (1, 0.45), (0, 0.45)),
            ((0.1, 0.44), (0.9, 0.44), (0.9, 1), (0.6, 1), (0.6, 0.68), (0.4, 0.68), (0.4, 1), (0.1, 1)),
        ),
    ),
    "cup": (
        1.2,
        (
            ((0, 0), (0.75, 0), (0.65, 1), (0.1, 1)),
            ((0.7, 0.18), (1, 0.18), (1, 0.7), (0.66, 0.7), (0.66, 0.54), (0.86, 0.54), (0.86, 0.34), (0.7, 0.34)),
        ),
    ),
}


class DrawnScenes:
    """One to `most` things; which of them come together in one of val's scenes never do in train's.

    Args:
        side: pixels, height = width.
        growth: of scenes, from one large thing to `most` of all sizes.
    """

    def __init__(self, side: int, val: bool, most: int, growth: Growth = FULL):
        self.side, self.val, self.most, self.growth = side, val, most, growth

    def __len__(self) -> int:
        return 0

    def scene(self, number: int, rng: np.random.Generator) -> Scene:
        ground = rng.integers(*GROUND, 3, endpoint=True)
        while True:
            chosen = self._place(rng, grown(number, self.growth))
            if is_held_out(chosen) == self.val:
                break
        canvas = Image.new("RGB", (self.side * FINER,) * 2, tuple(ground.tolist()))
        pen = ImageDraw.Draw(canvas)
        for thing in chosen:
            x1, y1, x2, y2 = (share * self.side * FINER for share in thing.box)
            colour = np.clip(np.array(COLOURS[thing.phrase.split()[0]]) + rng.integers(-18, 19, 3), 0, 255)
            for shape in THINGS[thing.name][1]:
                # Pillow paints the pixels of an outline too.
                corners = [(x1 + x * (x2 - x1 - 1), y1 + y * (y2 - y1 - 1)) for x, y in shape]
                pen.polygon(corners, fill=tuple(colour.tolist()))
        image = np.asarray(canvas.reduce(FINER), np.float32)
        noise = rng.normal(0, 255 * rng.uniform(0, NOISE), image.shape)
        return Scene(np.clip(image + noise + 0.5, 0, 255).astype(np.uint8), chosen)

    def _place(self, rng: np.random.Generator, part: float) -> list[Object]:
        wanted = int(rng.integers(1, 2 + int((self.most - 1) * part)))
        shortest, longest = (first + part * (last - first) for first, last in zip(FIRST_SIZES, SIZES, strict=True))
        placed: list[Object] = []
        for _ in range(10 * wanted):
            if placed and rng.random() < REPEATED:  # the like of another one, which only its place tells from it
                name, colour = placed[-1].name, placed[-1].phrase.split()[0]
            else:
                name, colour = str(rng.choice(list(THINGS))), str(rng.choice(list(COLOURS)))
            aspect, longer = THINGS[name][0], rng.uniform(shortest, longest)
            wide, high = (longer, longer / aspect) if aspect >= 1 else (longer * aspect, longer)
            # Whole pixels, so that the box is exact in the picture.
            wide, high = (max(2, round(side * self.side)) for side in (wide, high))
            left, top = (int(rng.integers(0, self.side - side + 1)) for side in (wide, high))
            box = left / self.side, top / self.side, (left + wide) / self.side, (top + high) / self.side
            if all(_covered(box, other.box) <= MOST_COVERED for other in placed):
                placed.append(Object(name, box, f"{colour} {name}"))
            if len(placed) == wanted:
                break
        return placed


def is_held_out(things: list[Object]) -> bool:
    """Whether such a scene is one of val's: by its things, their colours and where they are, to a third."""
    signature = sorted(f"{thing.phrase} {int(3 * thing.box[0])} {int(3 * thing.box[1])}" for thing in things)
    return words.is_held_out(" ".join(signature))


def _covered(one: Box, other: Box) -> float:
    """The overlap of two boxes, as a share of the smaller one."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return max(0.0, wide) * max(0.0, high) / smaller

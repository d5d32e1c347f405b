"""Procedural textures: functions from local points (3, N) to sRGB colours (3, N) in [0, 1].

N points. Each maker returns a closure; colours are (r, g, b) triples. What is random comes from the dice's `paint`.
Classes share palettes, so that no colour tells what a thing is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sak.data.mini.dice import Dice
from sak.data.mini.primitives import Texture

Colour = Sequence[float] | np.ndarray

COLOURS: dict[str, Colour] = {
    "red": (0.78, 0.13, 0.12),
    "blue": (0.14, 0.27, 0.72),
    "green": (0.15, 0.52, 0.20),
    "yellow": (0.90, 0.76, 0.14),
    "orange": (0.90, 0.47, 0.10),
    "white": (0.92, 0.92, 0.90),
    "black": (0.09, 0.09, 0.10),
    "grey": (0.50, 0.51, 0.53),
    "brown": (0.42, 0.26, 0.14),
    "pink": (0.90, 0.52, 0.62),
    "purple": (0.45, 0.20, 0.55),
    "beige": (0.80, 0.71, 0.55),
    "turquoise": (0.16, 0.62, 0.62),
}
PAINT = "red blue green yellow orange white black grey brown beige turquoise purple"  # what people make, of any kind
COAT = "brown brown beige black white grey orange"  # animals
WALLS = "white beige grey yellow green blue pink turquoise orange brown"  # rooms, and their floors
BLACK, GREY, GLASS = (0.07, 0.07, 0.08), (0.55, 0.56, 0.58), (0.16, 0.22, 0.28)


def column(colour: Colour) -> np.ndarray:
    return np.asarray(colour, np.float32)[:, None]


def vary(rng: Dice, colour: Colour, amount: float = 0.07) -> np.ndarray:
    """The colour, a little lighter or darker and a little off its hue."""
    return np.clip(np.asarray(colour) * rng.paint.uniform(0.85, 1.15) + rng.paint.normal(0, amount / 2, 3), 0.02, 0.98)


def pick(rng: Dice, names: str) -> tuple[str, np.ndarray]:
    """One of the colours named in a string, with its variation."""
    name = str(rng.paint.choice(names.split()))
    return name, vary(rng, COLOURS[name])


def any_colour(rng: Dice, names: str = PAINT) -> np.ndarray:
    return pick(rng, names)[1]


def solid(colour: Colour) -> Texture:
    return lambda p: np.broadcast_to(column(colour), p.shape)


def stripes(a: Colour, b: Colour, period: float, axis: int = 0, share: float = 0.5) -> Texture:
    def texture(p):
        return np.where(np.mod(p[axis] / period, 1) < share, column(a), column(b))

    return texture


def checker(a: Colour, b: Colour, size: float, axes: tuple[int, ...] = (0, 1)) -> Texture:
    def texture(p):
        cells = sum(np.floor(p[i] / size + 1e-3) for i in axes)
        return np.where(np.mod(cells, 2) < 1, column(a), column(b))

    return texture


def dots(a: Colour, b: Colour, spacing: float, axes: tuple[int, int] = (0, 1), share: float = 0.3) -> Texture:
    """Round dots of `b` on `a`, every second row shifted by half a spacing."""

    def texture(p):
        row = np.floor(p[axes[1]] / spacing)
        u = np.mod(p[axes[0]] / spacing + 0.5 * np.mod(row, 2), 1) - 0.5
        v = np.mod(p[axes[1]] / spacing, 1) - 0.5
        return np.where(u * u + v * v < share**2, column(b), column(a))

    return texture


def diamonds(a: Colour, b: Colour, size: float, axes: tuple[int, int] = (0, 1)) -> Texture:
    def texture(p):
        u, v = p[axes[0]] / size, p[axes[1]] / size / 1.6
        return np.where(np.mod(np.floor(u + v) + np.floor(u - v), 2) < 1, column(a), column(b))

    return texture


def bricks(brick: Colour, mortar: Colour, width: float, height: float) -> Texture:
    """Courses in the local x-y plane, every second one shifted by half a brick."""

    def texture(p):
        row = np.floor(p[1] / height)
        along = np.mod(p[0] / width + 0.5 * np.mod(row, 2), 1)
        joint = (along < 0.08) | (np.mod(p[1] / height, 1) < 0.15)
        return np.where(joint, column(mortar), column(brick))

    return texture


def below(lower: Texture, upper: Texture, height: float, axis: int = 1) -> Texture:
    """Two textures, one up to a height: wainscots, two-tone buses."""
    return lambda p: np.where(p[axis] < height, lower(p), upper(p))


def noise(rng: Dice, colour: Colour, scale: float, amount: float, other: Colour | None = None) -> Texture:
    """Smooth random mottling: a sum of plane waves with wavelengths about `scale`, as lightness or towards `other`."""
    waves = rng.paint.normal(0, 2 * np.pi / scale / 1.7, (6, 3)).astype(np.float32)
    phases = rng.paint.uniform(0, 2 * np.pi, (6, 1)).astype(np.float32)

    def texture(p):
        mix = np.sin(waves @ p + phases).sum(0) / 3.5
        if other is None:
            return np.clip(column(colour) * (1 + amount * mix), 0, 1)
        weight = np.clip(0.5 + mix * amount, 0, 1)
        return column(colour) * (1 - weight) + column(other) * weight

    return texture


def spots(rng: Dice, a: Colour, b: Colour, scale: float) -> Texture:
    """Hard-edged random patches: a cow's coat."""
    return noise(rng, a, scale, 12.0, b)


def wood(rng: Dice, colour: Colour, axis: int = 0) -> Texture:
    """Wavy grain along the local `axis`."""
    across, phase = (axis + 1) % 3, rng.paint.uniform(0, 6)
    grain = rng.paint.uniform(35, 70)

    def texture(p):
        wave = np.sin(grain * (p[across] + p[(axis + 2) % 3]) + 2.5 * np.sin(2.5 * p[axis] + phase))
        return np.clip(column(colour) * (1 + 0.14 * wave), 0, 1)

    return texture


def cloth(rng: Dice, colour: Colour, scale: float) -> Texture:
    """Plain, striped, checked, dotted or mottled, with details of about `scale` metres: clothes, seats, curtains."""
    other = (
        any_colour(rng) if rng.paint.random() < 0.5 else np.clip(np.asarray(colour) * rng.paint.uniform(0.5, 1.5), 0, 1)
    )
    return _one_of(
        rng,
        lambda: solid(colour),
        lambda: noise(rng, colour, scale, 0.12),
        lambda: stripes(colour, other, scale * rng.paint.uniform(0.4, 1), axis=int(rng.paint.integers(3))),
        lambda: checker(colour, other, scale * rng.paint.uniform(0.4, 0.8), axes=(0, 2)),
        lambda: dots(colour, other, scale * rng.paint.uniform(0.4, 0.8), axes=(0, 2)),
    )


def furniture(rng: Dice, colour: Colour) -> Texture:
    """Painted, or with a grain."""
    return wood(rng, colour, axis=int(rng.paint.integers(3))) if rng.paint.random() < 0.6 else solid(colour)


def fur(rng: Dice, scale: float) -> tuple[str, np.ndarray, Texture]:
    """(name, colour, texture) of an animal's coat: plain, spotted with white or black, striped or shaded."""
    name, colour = pick(rng, COAT)
    second = "black" if name == "white" else "white"
    kind = rng.paint.integers(5)
    if kind == 0:
        return f"{name} and {second}", colour, spots(rng, colour, vary(rng, COLOURS[second], 0.03), scale)
    if kind == 1:
        return f"striped {name}", colour, stripes(colour, colour * 0.6, scale / 3, share=0.6)
    return name, colour, noise(rng, colour, scale / 3, 0.1 if kind < 4 else 0.3)


def surface(rng: Dice, names: str, scale: float) -> tuple[str, Texture]:
    """(name of the colour, texture) of a wall's or floor's local x-y plane; one in seven is plain."""
    name, a = pick(rng, names)
    b = np.clip(a * rng.paint.uniform(0.6, 1.35), 0, 1)
    if rng.paint.random() < 0.4:
        b = vary(rng, COLOURS[str(rng.paint.choice(names.split()))])
    size = scale * rng.paint.uniform(0.15, 0.45)
    texture = _one_of(
        rng,
        lambda: solid(a),
        lambda: checker(a, b, size),
        lambda: stripes(a, b, size, axis=int(rng.paint.integers(2)), share=rng.paint.uniform(0.3, 0.7)),
        lambda: bricks(a, b, size * 1.6, size * 0.6),
        lambda: dots(a, b, size),
        lambda: diamonds(a, b, size),
        lambda: noise(rng, a, scale, 0.8, b),
    )
    return name, texture


def _one_of(rng: Dice, *makers) -> Texture:
    return makers[rng.paint.integers(len(makers))]()


def panes(wall: Colour, glass: Colour, spacing: float, band: tuple[float, float], along=0, up=2, share=0.7) -> Texture:
    """A row of windows between two heights: the sides of buses, trains and aeroplanes."""

    def texture(p):
        inside = (p[up] > band[0]) & (p[up] < band[1]) & (np.mod(p[along] / spacing, 1) < share)
        return np.where(inside, column(glass), column(wall))

    return texture


def facade(wall: Colour, glass: Colour, spacing: float, storey: float) -> Texture:
    """Windows in a grid on every vertical side of a building."""

    def texture(p):
        columns = np.mod((p[0] + p[1]) / spacing, 1)
        rows = np.mod(p[2] / storey, 1)
        return np.where((columns > 0.3) & (columns < 0.72) & (rows > 0.3) & (rows < 0.75), column(glass), column(wall))

    return texture


def front(face: Texture, back: Texture, margin: Sequence[float]) -> Texture:
    """`face` on the side towards -y, `margin` its half width and half height, framed by `back`: screens, pictures."""

    def texture(p):
        inside = (np.abs(p[0]) < margin[0]) & (np.abs(p[2]) < margin[1]) & (p[1] < 0)
        return np.where(inside, face(p), back(p))

    return texture

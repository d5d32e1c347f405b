"""Things out of doors that are no VOC class: trees, houses, walls. Semantic segmentation calls them background."""

from __future__ import annotations

import numpy as np

from sak.data.mini.dice import Dice
from sak.data.mini.primitives import Capsule, Ellipsoid, Frustum, Primitive, box, rotation
from sak.data.mini.texture import WALLS, any_colour, bricks, facade, furniture, noise, solid, surface, vary
from sak.data.mini.things.thing import Thing

GLASS = (0.20, 0.26, 0.32)


def tree(rng: Dice) -> Thing:
    high = rng.uniform(2.5, 5.0)
    leaf = any_colour(rng, "green green green orange yellow") * (0.9, 0.75, 0.6)
    bark = noise(rng, (0.33, 0.23, 0.15), 0.2, 0.2)
    shapes: list[Primitive] = [Frustum((0, 0, 0), (0, 0, high * 0.5), 0.06 * high, 0.035 * high, bark)]
    if rng.random() < 0.35:
        for i in range(3):
            z = high * (0.3 + 0.22 * i)
            shapes.append(
                Frustum(
                    (0, 0, z),
                    (0, 0, z + 0.38 * high),
                    (0.27 - 0.06 * i) * high,
                    0.01,
                    noise(rng, leaf * 0.8, 0.3, 0.25),
                )
            )
    else:
        for _ in range(5):
            place = np.asarray([0, 0, 0.68 * high]) + rng.normal(0, 0.11, 3) * high
            shapes.append(
                Ellipsoid(
                    place, high * rng.uniform(0.16, 0.24, 3), noise(rng, leaf * rng.paint.uniform(0.8, 1.2), 0.3, 0.25)
                )
            )
    return Thing("tree", shapes, "tree")


def building(rng: Dice) -> Thing:
    w, d, h = rng.uniform(5, 12), rng.uniform(4, 7), rng.uniform(4, 11)
    wall = any_colour(rng, "beige grey white brown orange yellow pink red")
    shapes = [
        box(
            (0, 0, h / 2),
            (w, d, h),
            facade(wall, vary(rng, GLASS), rng.paint.uniform(1.4, 2.2), rng.paint.uniform(1.8, 2.6)),
        )
    ]
    if rng.random() < 0.5:
        shapes.append(
            box((0, 0, h + 0.8), (w + 0.6, d + 0.6, 1.6), solid(vary(rng, (0.5, 0.22, 0.16))), taper=(0.25, 0.9))
        )
    return Thing("building", shapes, "building")


def garden_wall(rng: Dice) -> Thing:
    """A wall that stands in the open, its long sides towards ±y."""
    w, h = rng.uniform(8, 16), rng.uniform(1.4, 3.5)
    brick = bricks(any_colour(rng, WALLS), (0.75, 0.72, 0.68), 0.6, 0.25)
    texture = brick if rng.paint.random() < 0.6 else surface(rng, WALLS, 1.0)[1]
    upright = rotation(0, np.pi / 2).T  # local z across the wall, so that courses lie in local x-y
    return Thing("wall", [box((0, 0, h / 2), (w, h, 0.3), texture, axes=upright)], "wall")


def fence(rng: Dice) -> Thing:
    texture, w = furniture(rng, any_colour(rng)), rng.uniform(5, 9)
    shapes = [box((0, 0, z), (w, 0.05, 0.12), texture) for z in (0.4, 0.85)]
    shapes += [box((x, 0, 0.55), (0.12, 0.08, 1.1), texture) for x in np.linspace(-w / 2, w / 2, 7)]
    return Thing("fence", shapes, "fence")


def bench(rng: Dice) -> Thing:
    texture = furniture(rng, any_colour(rng))
    shapes = [box((0, 0, 0.45), (1.5, 0.4, 0.06), texture), box((0, 0.2, 0.75), (1.5, 0.05, 0.3), texture)]
    shapes += [box((x, 0, 0.21), (0.08, 0.36, 0.42), solid((0.2, 0.2, 0.2))) for x in (-0.6, 0.6)]
    return Thing("bench", shapes, "bench", top=0.48)


def rock(rng: Dice) -> Thing:
    r = rng.uniform(0.2, 0.5)
    texture = noise(rng, vary(rng, (0.5, 0.48, 0.45)), 0.2, 0.2)
    return Thing(
        "rock",
        [
            Ellipsoid((0, 0, 0.5 * r), (1.3 * r, r, 0.8 * r), texture),
            Ellipsoid((r, 0.2 * r, 0.3 * r), 0.6 * r, texture),
        ],
        "rock",
    )


def mountain(rng: Dice) -> Thing:
    texture = noise(rng, vary(rng, (0.42, 0.48, 0.52)), 6.0, 0.12)
    shapes = [
        Frustum((x, rng.uniform(-4, 4), -1), (x, 0, rng.uniform(7, 16)), rng.uniform(14, 24), 1.0, texture)
        for x in (-20, 2, 22)
    ]
    return Thing("mountain", shapes, "mountain")


def barrel(rng: Dice) -> Thing:
    r, h = rng.uniform(0.25, 0.4), rng.uniform(0.7, 1.1)
    a, hoop = any_colour(rng), any_colour(rng)
    shapes: list[Primitive] = [
        Frustum((0, 0, 0), (0, 0, h / 2), 0.85 * r, r, furniture(rng, a)),
        Frustum((0, 0, h / 2), (0, 0, h), r, 0.85 * r, furniture(rng, a)),
    ]
    shapes += [Frustum((0, 0, z * h), (0, 0, (z + 0.07) * h), 0.98 * r, 0.98 * r, solid(hoop)) for z in (0.2, 0.73)]
    return Thing("barrel", shapes, "barrel", top=h)


def post(rng: Dice) -> Thing:
    """A lamp post."""
    high, metal = rng.uniform(2.5, 4.0), solid(any_colour(rng, "black grey green blue brown"))
    shapes: list[Primitive] = [
        Frustum((0, 0, 0), (0, 0, 0.4), 0.12, 0.07, metal),
        Capsule((0, 0, 0.3), (0, 0, high), 0.05, metal),
        Frustum((0, 0, high), (0, 0, high + 0.35), 0.1, 0.18, solid(vary(rng, (0.95, 0.9, 0.7)))),
        Frustum((0, 0, high + 0.35), (0, 0, high + 0.5), 0.2, 0.03, metal),
    ]
    return Thing("light", shapes, "street lamp")

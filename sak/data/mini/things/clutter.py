"""Things about the house that are no VOC class. Semantic segmentation calls them background."""

from __future__ import annotations

import numpy as np

from sak.data.mini.dice import Dice
from sak.data.mini.primitives import Capsule, Ellipsoid, Frustum, Primitive, box, rotation
from sak.data.mini.texture import (
    PAINT,
    any_colour,
    checker,
    cloth,
    dots,
    front,
    furniture,
    noise,
    solid,
    stripes,
    surface,
    vary,
)
from sak.data.mini.things.thing import Thing


def cardboard(rng: Dice) -> Thing:
    w, d, h = rng.uniform(0.25, 0.6, 3)
    paper = noise(rng, vary(rng, (0.66, 0.50, 0.32)), 0.3, 0.08)
    texture = paper if rng.paint.random() < 0.4 else cloth(rng, any_colour(rng), 0.2)
    return Thing("box", [box((0, 0, h / 2), (w, d, h), texture)], "box", top=h)


def ball(rng: Dice) -> Thing:
    r, a, b = rng.uniform(0.1, 0.3), any_colour(rng), any_colour(rng)
    texture = stripes(a, b, r, axis=2) if rng.paint.random() < 0.5 else dots(a, b, r, axes=(0, 2), share=0.4)
    return Thing("ball", [Ellipsoid((0, 0, r), r, texture)], "ball")


def bag(rng: Dice) -> Thing:
    w, h = rng.uniform(0.35, 0.6), rng.uniform(0.35, 0.65)
    texture, strap = cloth(rng, any_colour(rng), 0.2), solid(any_colour(rng))
    shapes: list[Primitive] = [
        box((0, 0, h / 2), (w, 0.22, h), texture, taper=(0.15, 0.5)),
        box((0, -0.1, h * 0.3), (w * 0.6, 0.1, h * 0.35), strap),
    ]
    shapes += [Capsule((s * w * 0.25, 0, h), (s * w * 0.12, 0, h + 0.14), 0.018, strap) for s in (-1, 1)]
    shapes.append(Capsule((-w * 0.12, 0, h + 0.14), (w * 0.12, 0, h + 0.14), 0.018, strap))
    return Thing("bag", shapes, "bag")


def basket(rng: Dice) -> Thing:
    r, h = rng.uniform(0.18, 0.35), rng.uniform(0.25, 0.45)
    weave = checker(any_colour(rng), any_colour(rng), 0.06, axes=(0, 2))
    shapes = [
        Frustum((0, 0, 0), (0, 0, h), 0.8 * r, r, weave),
        Ellipsoid((0, 0, h), (0.85 * r, 0.85 * r, 0.1), solid(any_colour(rng))),
    ]
    return Thing("basket", shapes, "basket")


def books(rng: Dice) -> Thing:
    shapes, z = [], 0.0
    for _ in range(rng.integers(2, 6)):
        h = rng.uniform(0.02, 0.05)
        turn = rotation(2, rng.uniform(-0.3, 0.3))
        shapes.append(box((0, 0, z + h / 2), (rng.uniform(0.2, 0.28), 0.18, h), solid(any_colour(rng)), axes=turn))
        z += h
    return Thing("book", shapes, "books", top=z)


def cup(rng: Dice) -> Thing:
    texture = solid(any_colour(rng))
    return Thing(
        "cup",
        [
            Frustum((0, 0, 0), (0, 0, 0.1), 0.033, 0.042, texture),
            Capsule((0.04, 0, 0.03), (0.06, 0, 0.07), 0.009, texture),
        ],
        "cup",
    )


def lamp(rng: Dice) -> Thing:
    high, shade = rng.uniform(1.2, 1.7), any_colour(rng, "beige white yellow red blue green orange")
    shapes = [
        Frustum((0, 0, 0), (0, 0, 0.04), 0.17, 0.15, solid((0.15, 0.15, 0.15))),
        Capsule((0, 0, 0.03), (0, 0, high), 0.018, solid((0.2, 0.2, 0.2))),
        Frustum((0, 0, high), (0, 0, high + 0.3), 0.24, 0.13, solid(shade)),
    ]
    return Thing("light", shapes, "lamp")


def cushion(rng: Dice) -> Thing:
    texture = cloth(rng, any_colour(rng), 0.2)
    return Thing("cushion", [Ellipsoid((0, 0, 0.1), (0.27, 0.24, 0.1), texture)], "cushion")


def cabinet(rng: Dice) -> Thing:
    w, d, h = rng.uniform(0.8, 1.5), rng.uniform(0.35, 0.5), rng.uniform(0.5, 1.0)
    colour = any_colour(rng)
    body = furniture(rng, colour)
    shapes: list[Primitive] = [box((0, 0, h / 2), (w, d, h), body)]
    for x in (-w / 4, w / 4):
        shapes.append(box((x, -d / 2, h / 2), (w / 2 - 0.06, 0.03, h - 0.1), solid(colour * 0.85)))
        shapes.append(Ellipsoid((x * 0.3, -d / 2 - 0.03, h * 0.6), 0.025, solid((0.7, 0.65, 0.5))))
    return Thing("cabinet", shapes, "cabinet", top=h)


def shelves(rng: Dice) -> Thing:
    w, h = rng.uniform(0.7, 1.1), rng.uniform(1.5, 2.0)
    plank = furniture(rng, any_colour(rng))
    shapes = [box((0, 0.16, h / 2), (w, 0.03, h), plank)]
    shapes += [box((s * w / 2, 0, h / 2), (0.04, 0.32, h), plank) for s in (-1, 1)]
    rows = 5
    for i in range(rows + 1):
        shapes.append(box((0, 0, h * i / rows), (w, 0.32, 0.04), plank))
    for i in range(rows):
        spines = stripes(any_colour(rng), any_colour(rng), rng.uniform(0.05, 0.1), share=rng.uniform(0.3, 0.7))
        wide = rng.uniform(0.5, 0.95) * w
        shapes.append(
            box((-(w - wide) / 2 * 0.95, 0.03, h * (i + 0.4) / rows), (wide * 0.95, 0.2, 0.7 * h / rows), spines)
        )
    return Thing("shelves", shapes, "shelves")


def picture(rng: Dice) -> Thing:
    w, h = rng.uniform(0.4, 1.0), rng.uniform(0.4, 0.8)
    canvas = noise(rng, any_colour(rng), 0.3, 1.5, any_colour(rng))
    texture = front(canvas, solid(any_colour(rng)), (w / 2 - 0.05, h / 2 - 0.05))
    return Thing("picture", [box((0, 0, 1.6), (w, 0.05, h), texture)], "picture")


def window(rng: Dice) -> Thing:
    w, h = rng.uniform(0.8, 1.5), rng.uniform(0.8, 1.2)
    view = noise(rng, vary(rng, (0.62, 0.78, 0.92)), 0.8, 0.5, (0.92, 0.95, 0.98))
    white = solid((0.9, 0.9, 0.88))
    shapes = [
        box((0, 0, 1.55), (w, 0.06, h), front(view, white, (w / 2 - 0.06, h / 2 - 0.06))),
        box((0, -0.02, 1.55), (0.06, 0.07, h), white),
        box((0, -0.05, 1.55 - h / 2), (w + 0.15, 0.2, 0.05), white),
    ]
    return Thing("window", shapes, "window")


def door(rng: Dice) -> Thing:
    colour = any_colour(rng)
    shapes = [
        box((0, 0, 1.05), (0.95, 0.06, 2.1), solid(colour)),
        box((0, -0.02, 1.5), (0.6, 0.06, 0.8), solid(colour * 0.88)),
        box((0, -0.02, 0.55), (0.6, 0.06, 0.7), solid(colour * 0.88)),
        Ellipsoid((0.38, -0.07, 1.0), 0.04, solid((0.8, 0.7, 0.3))),
    ]
    return Thing("door", shapes, "door")


def curtain(rng: Dice) -> Thing:
    a, tall = any_colour(rng), rng.uniform(1.9, 2.3)
    shapes = [
        Capsule((x, 0, 0.15), (x, 0, tall), 0.07, solid(a * rng.uniform(0.85, 1.0))) for x in np.arange(5) * 0.11 - 0.22
    ]
    return Thing("curtain", shapes, "curtain")


def rug(rng: Dice) -> Thing:
    w, d = rng.uniform(1.2, 2.2), rng.uniform(0.9, 1.5)
    return Thing("rug", [box((0, 0, 0.005), (w, d, 0.01), surface(rng, PAINT, 0.8)[1])], "rug")


ON_FLOOR = (cardboard, books, lamp, cushion, cabinet, ball, bag, basket)
ON_TABLE = (books, cup, cup, cardboard, ball, basket)
ON_WALL = (picture, window, door, curtain, picture, shelves)

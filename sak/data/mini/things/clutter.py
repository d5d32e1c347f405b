"""Things that are no VOC class: furniture, boxes, trees, houses. Semantic segmentation calls them background."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sak.data.mini.primitives import Capsule, Ellipsoid, Frustum, Primitive, box, rotation
from sak.data.mini.texture import COLOURS, bricks, checker, facade, front, noise, solid, stripes, vary, wood
from sak.data.mini.things.thing import Thing

GLASS = (0.20, 0.26, 0.32)


def any_colour(rng: np.random.Generator) -> np.ndarray:
    return vary(rng, list(COLOURS.values())[rng.integers(len(COLOURS))])


def cardboard(rng) -> Thing:
    w, d, h = rng.uniform(0.25, 0.6, 3)
    texture = noise(rng, vary(rng, (0.66, 0.50, 0.32)), 0.3, 0.08) if rng.random() < 0.6 else solid(any_colour(rng))
    return Thing("box", [box((0, 0, h / 2), (w, d, h), texture)], "box", top=h)


def books(rng) -> Thing:
    shapes, z = [], 0.0
    for _ in range(rng.integers(2, 6)):
        h = rng.uniform(0.02, 0.05)
        turn = rotation(2, rng.uniform(-0.3, 0.3))
        shapes.append(box((0, 0, z + h / 2), (rng.uniform(0.2, 0.28), 0.18, h), solid(any_colour(rng)), axes=turn))
        z += h
    return Thing("book", shapes, "books", top=z)


def cup(rng) -> Thing:
    texture = solid(any_colour(rng))
    return Thing(
        "cup",
        [
            Frustum((0, 0, 0), (0, 0, 0.1), 0.033, 0.042, texture),
            Capsule((0.04, 0, 0.03), (0.06, 0, 0.07), 0.009, texture),
        ],
        "cup",
    )


def lamp(rng) -> Thing:
    high, shade = rng.uniform(1.2, 1.7), vary(rng, (0.95, 0.87, 0.65))
    shapes = [
        Frustum((0, 0, 0), (0, 0, 0.04), 0.17, 0.15, solid((0.15, 0.15, 0.15))),
        Capsule((0, 0, 0.03), (0, 0, high), 0.018, solid((0.2, 0.2, 0.2))),
        Frustum((0, 0, high), (0, 0, high + 0.3), 0.24, 0.13, solid(shade)),
    ]
    return Thing("light", shapes, "lamp")


def cushion(rng) -> Thing:
    texture = checker(any_colour(rng), any_colour(rng), 0.12) if rng.random() < 0.4 else solid(any_colour(rng))
    return Thing("cushion", [Ellipsoid((0, 0, 0.1), (0.27, 0.24, 0.1), texture)], "cushion")


def cabinet(rng) -> Thing:
    w, d, h = rng.uniform(0.8, 1.5), rng.uniform(0.35, 0.5), rng.uniform(0.5, 1.0)
    colour = vary(rng, COLOURS[str(rng.choice(["brown", "beige", "white", "grey"]))])
    body = wood(rng, colour, axis=2)
    shapes: list[Primitive] = [box((0, 0, h / 2), (w, d, h), body)]
    for x in (-w / 4, w / 4):
        shapes.append(box((x, -d / 2, h / 2), (w / 2 - 0.06, 0.03, h - 0.1), solid(colour * 0.85)))
        shapes.append(Ellipsoid((x * 0.3, -d / 2 - 0.03, h * 0.6), 0.025, solid((0.7, 0.65, 0.5))))
    return Thing("cabinet", shapes, "cabinet", top=h)


def shelves(rng) -> Thing:
    w, h = rng.uniform(0.7, 1.1), rng.uniform(1.5, 2.0)
    plank = wood(rng, vary(rng, COLOURS[str(rng.choice(["brown", "beige", "white"]))]))
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


def picture(rng) -> Thing:
    w, h = rng.uniform(0.4, 1.0), rng.uniform(0.4, 0.8)
    canvas = noise(rng, any_colour(rng), 0.3, 1.5, any_colour(rng))
    texture = front(
        canvas, solid(vary(rng, COLOURS[str(rng.choice(["brown", "black", "white"]))])), (w / 2 - 0.05, h / 2 - 0.05)
    )
    return Thing("picture", [box((0, 0, 1.6), (w, 0.05, h), texture)], "picture")


def window(rng) -> Thing:
    w, h = rng.uniform(0.8, 1.5), rng.uniform(0.8, 1.2)
    view = noise(rng, vary(rng, (0.62, 0.78, 0.92)), 0.8, 0.5, (0.92, 0.95, 0.98))
    white = solid((0.9, 0.9, 0.88))
    shapes = [
        box((0, 0, 1.55), (w, 0.06, h), front(view, white, (w / 2 - 0.06, h / 2 - 0.06))),
        box((0, -0.02, 1.55), (0.06, 0.07, h), white),
        box((0, -0.05, 1.55 - h / 2), (w + 0.15, 0.2, 0.05), white),
    ]
    return Thing("window", shapes, "window")


def door(rng) -> Thing:
    colour = vary(rng, COLOURS[str(rng.choice(["brown", "white", "beige", "green"]))])
    shapes = [
        box((0, 0, 1.05), (0.95, 0.06, 2.1), solid(colour)),
        box((0, -0.02, 1.5), (0.6, 0.06, 0.8), solid(colour * 0.88)),
        box((0, -0.02, 0.55), (0.6, 0.06, 0.7), solid(colour * 0.88)),
        Ellipsoid((0.38, -0.07, 1.0), 0.04, solid((0.8, 0.7, 0.3))),
    ]
    return Thing("door", shapes, "door")


def curtain(rng) -> Thing:
    a, tall = any_colour(rng), rng.uniform(1.9, 2.3)
    shapes = [
        Capsule((x, 0, 0.15), (x, 0, tall), 0.07, solid(a * rng.uniform(0.85, 1.0))) for x in np.arange(5) * 0.11 - 0.22
    ]
    return Thing("curtain", shapes, "curtain")


def rug(rng) -> Thing:
    w, d = rng.uniform(1.2, 2.2), rng.uniform(0.9, 1.5)
    a, b = any_colour(rng), any_colour(rng)
    texture = (
        stripes(a, b, rng.uniform(0.15, 0.4), axis=int(rng.integers(2))) if rng.random() < 0.6 else checker(a, b, 0.3)
    )
    return Thing("rug", [box((0, 0, 0.005), (w, d, 0.01), texture)], "rug")


def tree(rng) -> Thing:
    high = rng.uniform(2.5, 5.0)
    leaf, bark = vary(rng, (0.16, 0.38, 0.12)), noise(rng, (0.33, 0.23, 0.15), 0.2, 0.2)
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
                Ellipsoid(place, high * rng.uniform(0.16, 0.24, 3), noise(rng, leaf * rng.uniform(0.8, 1.2), 0.3, 0.25))
            )
    return Thing("tree", shapes, "tree")


def building(rng) -> Thing:
    w, d, h = rng.uniform(5, 12), rng.uniform(4, 7), rng.uniform(4, 11)
    wall = vary(rng, [(0.72, 0.66, 0.56), (0.62, 0.36, 0.28), (0.6, 0.6, 0.62), (0.85, 0.8, 0.7)][rng.integers(4)])
    shapes = [
        box((0, 0, h / 2), (w, d, h), facade(wall, vary(rng, GLASS), rng.uniform(1.4, 2.2), rng.uniform(1.8, 2.6)))
    ]
    if rng.random() < 0.5:
        shapes.append(
            box((0, 0, h + 0.8), (w + 0.6, d + 0.6, 1.6), solid(vary(rng, (0.5, 0.22, 0.16))), taper=(0.25, 0.9))
        )
    return Thing("building", shapes, "building")


def garden_wall(rng) -> Thing:
    """A wall that stands in the open, its long sides towards ±y."""
    w, h = rng.uniform(8, 16), rng.uniform(1.4, 3.5)
    brick = bricks(vary(rng, (0.62, 0.32, 0.24)), (0.75, 0.72, 0.68), 0.6, 0.25)
    texture = brick if rng.random() < 0.6 else noise(rng, vary(rng, (0.75, 0.7, 0.6)), 0.8, 0.1)
    upright = rotation(0, np.pi / 2).T  # local z across the wall, so that courses lie in local x-y
    return Thing("wall", [box((0, 0, h / 2), (w, h, 0.3), texture, axes=upright)], "wall")


def fence(rng) -> Thing:
    texture, w = wood(rng, vary(rng, COLOURS[str(rng.choice(["brown", "white", "beige"]))])), rng.uniform(5, 9)
    shapes = [box((0, 0, z), (w, 0.05, 0.12), texture) for z in (0.4, 0.85)]
    shapes += [box((x, 0, 0.55), (0.12, 0.08, 1.1), texture) for x in np.linspace(-w / 2, w / 2, 7)]
    return Thing("fence", shapes, "fence")


def bench(rng) -> Thing:
    texture = wood(rng, vary(rng, COLOURS["brown"]))
    shapes = [box((0, 0, 0.45), (1.5, 0.4, 0.06), texture), box((0, 0.2, 0.75), (1.5, 0.05, 0.3), texture)]
    shapes += [box((x, 0, 0.21), (0.08, 0.36, 0.42), solid((0.2, 0.2, 0.2))) for x in (-0.6, 0.6)]
    return Thing("bench", shapes, "bench", top=0.48)


def rock(rng) -> Thing:
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


def mountain(rng) -> Thing:
    texture = noise(rng, vary(rng, (0.42, 0.48, 0.52)), 6.0, 0.12)
    shapes = [
        Frustum((x, rng.uniform(-4, 4), -1), (x, 0, rng.uniform(7, 16)), rng.uniform(14, 24), 1.0, texture)
        for x in (-20, 2, 22)
    ]
    return Thing("mountain", shapes, "mountain")


Builder = Callable[[np.random.Generator], Thing]
ON_FLOOR: tuple[Builder, ...] = (cardboard, books, lamp, cushion, cabinet, cardboard)
ON_TABLE: tuple[Builder, ...] = (books, cup, cup, cardboard)
ON_WALL: tuple[Builder, ...] = (picture, window, door, curtain, picture, shelves)

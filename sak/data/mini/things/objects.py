"""Furniture and other household things, and the table of all builders.

A builder takes a Generator and returns a Thing in its own frame (thing.py), about life-size, with a shape of its own
and class-typical but varied colours. There is one for each VOC class but person (people.py).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sak.data.mini.primitives import Capsule, Ellipsoid, Frustum, Primitive, box, rotation
from sak.data.mini.texture import BLACK, COLOURS, front, noise, pick, solid, vary, wood
from sak.data.mini.things.animals import bird, cat, cow, dog, horse, sheep
from sak.data.mini.things.thing import Thing, with_article
from sak.data.mini.things.vehicles import aeroplane, bicycle, boat, bus, car, motorbike, train


def bottle(rng) -> Thing:
    name, colour = pick(rng, "green green brown blue white red turquoise")
    glass, label = solid(colour), solid(vary(rng, COLOURS[str(rng.choice(["white", "yellow", "red", "beige"]))]))
    r, tall = rng.uniform(0.036, 0.048), rng.uniform(0.9, 1.15)
    z = [0.0, 0.17 * tall, 0.225 * tall, 0.3 * tall, 0.325 * tall]
    shapes = [
        Frustum((0, 0, z[0]), (0, 0, z[1]), r, r, glass),
        Frustum((0, 0, z[1]), (0, 0, z[2]), r, 0.36 * r, glass),
        Frustum((0, 0, z[2]), (0, 0, z[3]), 0.36 * r, 0.32 * r, glass),
        Frustum((0, 0, z[3]), (0, 0, z[4]), 0.42 * r, 0.42 * r, solid(vary(rng, COLOURS["red"]))),
        Frustum((0, 0, 0.04 * tall), (0, 0, 0.13 * tall), 1.02 * r, 1.02 * r, label),
    ]
    return Thing("bottle", shapes, f"{name} bottle", voc="bottle")


def chair(rng) -> Thing:
    name, colour = pick(rng, "brown brown beige red white black blue")
    paint = wood(rng, colour) if name in ("brown", "beige") else solid(colour)
    back, w = rng.uniform(0.42, 0.6), rng.uniform(0.42, 0.5)
    shapes: list[Primitive] = [box((0, 0, 0.45), (w, w, 0.06), paint)]
    if rng.random() < 0.5:
        shapes.append(box((0, w / 2 - 0.02, 0.52 + back / 2), (w, 0.05, back * 0.9), paint))
    else:
        for z in (0.25, 0.6, 0.95):
            shapes.append(box((0, w / 2 - 0.02, 0.48 + back * z), (w, 0.035, 0.09), paint))
        for x in (-1, 1):
            shapes.append(
                Capsule((x * w / 2.2, w / 2 - 0.02, 0.45), (x * w / 2.2, w / 2 - 0.02, 0.5 + back), 0.024, paint)
            )
    if rng.random() < 0.25:
        shapes += [
            Capsule((0, 0, 0.1), (0, 0, 0.42), 0.035, solid(BLACK)),
            Frustum((0, 0, 0), (0, 0, 0.08), 0.27, 0.05, solid(BLACK)),
        ]
    else:
        for x in (-1, 1):
            for y in (-1, 1):
                shapes.append(
                    Capsule((x * w * 0.44, y * w * 0.44, 0.02), (x * w * 0.42, y * w * 0.42, 0.43), 0.024, paint)
                )
    return Thing("chair", shapes, f"{name} chair", voc="chair")


def diningtable(rng) -> Thing:
    name, colour = pick(rng, "brown brown brown beige white")
    high, long, deep = rng.uniform(0.7, 0.78), rng.uniform(1.2, 1.8), rng.uniform(0.75, 1.0)
    top = wood(rng, colour)
    if rng.random() < 0.3:
        r = deep * 0.62
        shapes: list[Primitive] = [
            Frustum((0, 0, high - 0.05), (0, 0, high), r, r, top),
            Frustum((0, 0, 0.05), (0, 0, high - 0.05), 0.05, 0.07, top),
            Frustum((0, 0, 0), (0, 0, 0.06), 0.32, 0.1, top),
        ]
    else:
        shapes = [box((0, 0, high - 0.03), (long, deep, 0.06), top)]
        for x in (-1, 1):
            for y in (-1, 1):
                place = np.asarray([x * (long / 2 - 0.07), y * (deep / 2 - 0.07), high / 2 - 0.03])
                shapes.append(box(place, (0.07, 0.07, high - 0.06), top))
        shapes.append(box((0, 0, high - 0.1), (long - 0.2, deep - 0.2, 0.1), top))
    return Thing("table", shapes, f"{name} dining table", voc="diningtable", top=high)


def pottedplant(rng) -> Thing:
    name, colour = pick(rng, "orange brown white blue beige")
    leaf = vary(rng, (0.16, 0.42, 0.13))
    high = rng.uniform(0.22, 0.34)
    shapes = [
        Frustum((0, 0, 0), (0, 0, high), 0.6 * high, 0.85 * high, solid(colour)),
        Frustum((0, 0, high * 0.86), (0, 0, high), 0.93 * high, 0.95 * high, solid(colour * 0.85)),
        Capsule((0, 0, high), (0, 0, high + 0.25), 0.02, solid((0.3, 0.25, 0.1))),
    ]
    kind = rng.integers(3)
    for i in range(9):
        angle, lean = i * 2.4 + rng.uniform(-0.3, 0.3), rng.uniform(0.25, 1.0)
        out = np.asarray([np.cos(angle) * np.sin(lean), np.sin(angle) * np.sin(lean), np.cos(lean)])
        green = noise(rng, leaf * rng.uniform(0.75, 1.3), 0.1, 0.2)
        if kind == 0:  # long leaves
            start = np.asarray([0, 0, high])
            shapes.append(Frustum(start, start + out * rng.uniform(0.4, 0.7), 0.06, 0.012, green))
        elif kind == 1:  # a bush
            place = np.asarray([0, 0, high + 0.22]) + out * 0.17
            shapes.append(Ellipsoid(place, rng.uniform(0.11, 0.17), green))
        else:  # broad leaves on stalks
            place = np.asarray([0, 0, high + 0.12]) + out * rng.uniform(0.22, 0.42)
            shapes.append(
                Ellipsoid(place, (0.12, 0.12, 0.03), green, axes=rotation(0, lean * np.cos(angle)) @ rotation(2, angle))
            )
    return Thing(
        "pottedplant",
        shapes,
        str(rng.choice(["potted plant", f"plant in {with_article(name)} pot"])),
        voc="pottedplant",
    )


def sofa(rng) -> Thing:
    name, colour = pick(rng, "red blue grey green brown beige black purple")
    cloth, w = noise(rng, colour, 0.15, 0.08), rng.uniform(1.5, 2.1)
    shapes: list[Primitive] = [
        box((0, 0, 0.24), (w, 0.8, 0.3), cloth),
        box((0, 0.36, 0.6), (w, 0.22, 0.62), cloth, axes=rotation(0, 0.12)),
    ]
    for x in (-1, 1):
        shapes.append(box((x * w / 2, -0.02, 0.36), (0.2, 0.84, 0.5), cloth))
        shapes.append(Capsule((x * w / 2, -0.38, 0.62), (x * w / 2, 0.34, 0.62), 0.12, cloth))
        shapes.append(Ellipsoid((x * w / 4, -0.06, 0.44), (w / 4.3, 0.38, 0.12), noise(rng, colour * 1.12, 0.2, 0.06)))
        for y in (-0.33, 0.33):
            shapes.append(Capsule((x * w * 0.45, y, 0.03), (x * w * 0.45, y, 0.1), 0.03, solid(BLACK)))
    return Thing("sofa", shapes, f"{name} {rng.choice(['sofa', 'couch'])}", voc="sofa", top=0.5)


def tvmonitor(rng) -> Thing:
    w, h = rng.uniform(0.55, 0.95), rng.uniform(0.36, 0.55)
    picture = solid(vary(rng, (0.04, 0.05, 0.08)))
    if rng.random() < 0.6:
        _, colour = pick(rng, "blue green turquoise orange white")
        picture = noise(
            rng, colour, w / 2, 0.9, vary(rng, COLOURS[str(rng.choice(["blue", "white", "black", "green"]))])
        )
    case = solid(vary(rng, COLOURS[str(rng.choice(["black", "black", "black", "grey"]))], 0.02))
    z = 0.1 + h / 2
    shapes = [
        box((0, 0, z), (w, 0.07, h), front(picture, case, (w / 2 - 0.035, h / 2 - 0.035))),
        box((0, 0.06, z), (w * 0.5, 0.09, h * 0.6), case),
        Frustum((0, 0.02, 0.01), (0, 0.02, 0.14), 0.04, 0.04, case),
        Frustum((0, 0.02, 0), (0, 0.02, 0.025), 0.17, 0.15, case),
    ]
    return Thing("tvmonitor", shapes, str(rng.choice(["television", "monitor", "tv screen"])), voc="tvmonitor")


BUILDERS: dict[str, Callable[[np.random.Generator], Thing]] = {
    builder.__name__: builder
    for builder in (
        *(aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike),
        *(pottedplant, sheep, sofa, train, tvmonitor),
    )
}

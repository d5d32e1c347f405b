"""One builder for each VOC class but person, each with a shape of its own and class-typical colours.

A builder takes a Generator and returns a Thing in its own frame (thing.py), about life-size. Long things lie along x.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sak.data.mini.animals import bird, cat, cow, dog, horse, sheep
from sak.data.mini.primitives import Annulus, Capsule, Ellipsoid, Frustum, Polyhedron, box, rotation
from sak.data.mini.texture import COLOURS, front, noise, panes, solid, stripes, vary, wood
from sak.data.mini.thing import Thing, with_article

BLACK, GREY, GLASS = (0.07, 0.07, 0.08), (0.55, 0.56, 0.58), (0.16, 0.22, 0.28)


def pick(rng: np.random.Generator, names: str) -> tuple[str, np.ndarray]:
    """One of the colours named in a string, with its variation."""
    name = str(rng.choice(names.split()))
    return name, vary(rng, COLOURS[name])


def wheel(x: float, y: float, radius: float, width: float) -> list:
    return [
        Frustum((x, y - width / 2, radius), (x, y + width / 2, radius), radius, radius, solid(BLACK)),
        Frustum((x, y - width * 0.55, radius), (x, y + width * 0.55, radius), radius / 2, radius / 2, solid(GREY)),
    ]


def prism(outline, height: float, texture, centre=(0, 0, 0), axes=None) -> Polyhedron:
    """A convex outline [(x, z), ...] (counter-clockwise) pulled out along y to a thickness: wings, fins, sails, hulls."""
    points = np.asarray(outline, np.float32)
    edges = np.roll(points, -1, axis=0) - points
    sides = np.stack([edges[:, 1], np.zeros(len(points)), -edges[:, 0]], axis=1)
    faces = [*sides, (0, 1, 0), (0, -1, 0)]
    offsets = [*(sides[:, 0] * points[:, 0] + sides[:, 2] * points[:, 1]), height / 2, height / 2]
    return Polyhedron(
        centre, faces, offsets, (*[np.abs(points[:, 0]).max(), height / 2, np.abs(points[:, 1]).max()],), texture, axes
    )


def aeroplane(rng) -> Thing:
    name, colour = pick(rng, "white white grey blue red")
    stripe = vary(rng, COLOURS[str(rng.choice(["blue", "red", "grey", "orange"]))])
    body = panes(colour, GLASS, 0.5, (-0.05, 0.3), along=2, up=1, share=0.5)
    paint, tail = solid(colour * 0.95), solid(stripe)
    flat = rotation(0, np.pi / 2)  # the outline's plane x-z becomes x-y
    shapes = [
        Capsule((-4.2, 0, 2), (3.8, 0, 2), 0.75, body),
        Frustum((3.6, 0, 2.1), (6.0, 0, 2.45), 0.74, 0.15, paint),
        prism([(-0.2, -0.1), (1.4, -0.1), (2.2, 1.9), (1.2, 1.9)], 0.16, tail, (4.1, 0, 2.6)),
        Ellipsoid((-4.75, 0, 2.25), (0.3, 0.45, 0.25), solid(GLASS)),
    ]
    for side in (1, -1):
        wing = [(-1.0, 0), (1.2, 0), (2.9, 5.2), (2.1, 5.2)]
        small = [(-0.3, 0), (0.8, 0), (1.4, 2.0), (0.9, 2.0)]
        for outline, place in ((wing, (-0.6, 0, 1.75)), (small, (4.6, 0, 2.5))):
            if side < 0:
                outline = [(x, -z) for x, z in reversed(outline)]
            shapes.append(prism(outline, 0.14, paint, place, axes=flat))
        shapes.append(Capsule((-0.9, side * 2.0, 1.35), (0.5, side * 2.0, 1.35), 0.33, tail))
        shapes.append(Capsule((0.3, side * 0.9, 0.25), (0.3, side * 0.9, 1.6), 0.1, solid(BLACK)))
        shapes += wheel(0.3, side * 0.9, 0.3, 0.2)
    shapes.append(Capsule((-3.6, 0, 0.2), (-3.6, 0, 1.4), 0.12, solid(BLACK)))
    return Thing("aeroplane", shapes, f"{name} aeroplane", voc="aeroplane")


def bicycle(rng) -> Thing:
    name, colour = pick(rng, "red blue green black yellow turquoise")
    paint, dark, tyre = solid(colour), solid(BLACK), solid((0.1, 0.1, 0.1))
    crank, seat, head_, rear, fork = (
        (-0.05, 0, 0.32),
        (-0.2, 0, 0.88),
        (0.38, 0, 0.82),
        (-0.52, 0, 0.34),
        (0.52, 0, 0.34),
    )
    shapes = [Annulus((x, 0, 0.34), (0, 1, 0), 0.275, 0.35, tyre) for x in (-0.52, 0.52)]
    shapes += [Annulus((x, 0, 0.34), (0, 1, 0), 0.0, 0.05, dark) for x in (-0.52, 0.52)]
    for x in (-0.52, 0.52):
        for angle in np.arange(4) * np.pi / 4:
            arm = 0.28 * np.asarray([np.cos(angle), 0, np.sin(angle)])
            shapes.append(Capsule((x, 0, 0.34) - arm, (x, 0, 0.34) + arm, 0.006, solid(GREY)))
    tubes = [(crank, seat), (crank, head_), (seat, head_), (crank, rear), (seat, rear), (head_, fork)]
    shapes += [Capsule(a, b, 0.03, paint) for a, b in tubes]
    shapes += [
        Capsule(head_, (0.34, 0, 1.0), 0.025, dark),
        Capsule((0.34, -0.28, 1.03), (0.34, 0.28, 1.03), 0.03, dark),
        Ellipsoid((-0.22, 0, 0.95), (0.16, 0.09, 0.045), dark),
        Annulus((-0.05, 0.03, 0.32), (0, 1, 0), 0.05, 0.1, dark),
    ]
    return Thing("bicycle", shapes, f"{name} bicycle", voc="bicycle")


def motorbike(rng) -> Thing:
    name, colour = pick(rng, "red black blue orange green white")
    paint, dark, metal = solid(colour), solid(BLACK), solid((0.62, 0.62, 0.64))
    shapes = []
    for x in (-0.7, 0.72):
        shapes += wheel(x, 0, 0.34, 0.16)
    shapes += [
        Ellipsoid((0.15, 0, 0.82), (0.34, 0.17, 0.17), paint),
        Ellipsoid((-0.5, 0, 0.8), (0.45, 0.16, 0.1), dark),
        Ellipsoid((-0.85, 0, 0.78), (0.22, 0.12, 0.1), paint),
        box((0.02, 0, 0.48), (0.55, 0.26, 0.36), metal),
        Capsule((0.42, 0, 0.95), (0.72, 0, 0.34), 0.06, metal),
        Capsule((0.35, -0.36, 1.06), (0.35, 0.36, 1.06), 0.035, dark),
        Capsule((-0.1, -0.17, 0.3), (-0.95, -0.17, 0.36), 0.06, metal),
        Ellipsoid((0.56, 0, 0.92), 0.13, solid((0.95, 0.93, 0.8))),
        Ellipsoid((0.72, 0, 0.64), (0.3, 0.1, 0.07), paint),
    ]
    return Thing("motorbike", shapes, f"{name} motorbike", voc="motorbike")


def boat(rng) -> Thing:
    name, colour = pick(rng, "white red blue green brown yellow")
    hull = stripes(colour, vary(rng, COLOURS["white"]), 2.0, axis=2, share=0.55)
    outline = [(-1.7, -0.45), (1.5, -0.45), (2.4, 0.45), (-1.9, 0.45)]
    shapes = [
        prism(outline, 1.3, hull, (0, 0, 0.35)),
        box((-0.05, 0, 0.83), (3.9, 1.1, 0.06), wood(rng, (0.6, 0.42, 0.25))),
    ]
    kind = str(rng.choice(["sailing boat", "boat", "fishing boat"]))
    if kind == "sailing boat":
        sail = solid(vary(rng, COLOURS[str(rng.choice(["white", "white", "red", "orange"]))]))
        shapes += [
            Capsule((0.2, 0, 0.5), (0.2, 0, 4.6), 0.05, wood(rng, (0.5, 0.35, 0.2))),
            prism([(-1.9, -1.6), (0, -1.6), (0, 1.9)], 0.06, sail, (0.12, 0, 2.6)),
            prism([(0, -1.5), (1.6, -1.5), (0, 1.2)], 0.06, sail, (0.35, 0, 2.6)),
        ]
    else:
        cabin = panes(vary(rng, COLOURS["white"]), GLASS, 0.5, (-0.1, 0.3), share=0.75)
        shapes += [
            box((-0.5, 0, 1.3), (1.4, 0.95, 0.95), cabin, taper=(0.15, 0.05)),
            box((-0.5, 0, 1.82), (1.6, 1.05, 0.08), solid(colour)),
        ]
        if kind == "fishing boat":
            shapes.append(Capsule((0.9, 0, 0.8), (0.9, 0, 2.6), 0.05, solid(GREY)))
            shapes.append(Frustum((-0.8, 0, 1.8), (-0.8, 0, 2.4), 0.16, 0.14, solid(vary(rng, COLOURS["red"]))))
    return Thing("boat", shapes, f"{name} {kind}", voc="boat", top=0.86)


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


def bus(rng) -> Thing:
    name, colour = pick(rng, "red yellow blue white orange green")
    side = panes(colour, GLASS, 1.25, (0.15, 0.95), share=0.85)
    shapes = [
        box((0, 0, 1.75), (8.4, 2.4, 2.7), side),
        box((0, 0, 0.55), (8.42, 2.42, 0.22), solid(colour * 0.5)),
        box((-4.2, 0, 2.05), (0.06, 2.1, 1.2), solid(GLASS)),
        box((4.2, 0, 2.3), (0.06, 1.9, 0.7), solid(GLASS)),
        box((-3.4, 0, 1.5), (0.9, 2.46, 2.0), solid(GLASS)),
        box((0, 0, 3.16), (7.6, 2.0, 0.14), solid(vary(rng, COLOURS["white"]))),
    ]
    for y in (-0.75, 0.75):
        shapes.append(Ellipsoid((-4.22, y, 0.9), 0.17, solid((0.98, 0.95, 0.8))))
    for x in (-2.4, 2.5):
        for y in (-1.1, 1.1):
            shapes += wheel(x, y, 0.52, 0.3)
    return Thing("bus", shapes, f"{name} bus", voc="bus")


def car(rng) -> Thing:
    name, colour = pick(rng, "red blue white black grey green yellow orange")
    paint, long = solid(colour), rng.uniform(0.9, 1.1)
    cabin = panes(colour, GLASS, 1.05, (-0.22, 0.17), share=0.9)
    shapes = [
        box((0, 0, 0.62), (4.1 * long, 1.7, 0.56), paint, taper=(0.04, 0.08)),
        box((0.25, 0, 1.18), (2.5 * long, 1.5, 0.56), cabin, taper=(0.38, 0.2)),
        box((-0.78 * long, 0, 1.14), (0.62, 1.25, 0.4), solid(GLASS), taper=(0.9, 0.15)),
        box((0, 0, 0.4), (4.2 * long, 1.74, 0.14), solid(BLACK)),
    ]
    for y in (-0.62, 0.62):
        shapes.append(Ellipsoid((-2.05 * long, y, 0.68), (0.08, 0.2, 0.12), solid((0.98, 0.95, 0.8))))
        shapes.append(Ellipsoid((2.05 * long, y, 0.7), (0.06, 0.18, 0.1), solid((0.75, 0.05, 0.05))))
        for x in (-1.3, 1.3):
            shapes += wheel(x * long, np.sign(y) * 0.78, 0.36, 0.22)
    return Thing("car", shapes, f"{name} car", voc="car")


def train(rng) -> Thing:
    name, colour = pick(rng, "green blue red yellow grey orange")
    second = vary(rng, COLOURS[str(rng.choice(["white", "yellow", "grey", "black"]))])
    side = panes(colour, GLASS, 1.5, (0.2, 0.9), share=0.6)
    shapes = [
        box((-5.75, 0, 1.75), (2.0, 2.4, 2.3), solid(second), taper=(0.85, 0.1)),
        box((-5.9, 0, 2.1), (1.35, 1.9, 0.8), solid(GLASS), taper=(0.9, 0.1)),
        box((-6.4, 0, 0.95), (1.1, 2.3, 0.7), solid(colour)),
    ]
    for x in (-2.2, 4.1):
        shapes += [
            box((x, 0, 1.95), (6.0, 2.5, 2.5), side),
            box((x, 0, 1.3), (6.02, 2.53, 0.25), solid(second)),
            box((x, 0, 3.26), (5.8, 2.1, 0.16), solid(GREY)),
            box((x, 0, 0.55), (5.4, 2.0, 0.4), solid(BLACK)),
        ]
        for dx in (-2.1, -1.2, 1.2, 2.1):
            shapes.append(Frustum((x + dx, -1.15, 0.4), (x + dx, 1.15, 0.4), 0.4, 0.4, solid((0.2, 0.2, 0.2))))
    return Thing("train", shapes, f"{name} train", voc="train")


def chair(rng) -> Thing:
    name, colour = pick(rng, "brown brown beige red white black blue")
    paint = wood(rng, colour) if name in ("brown", "beige") else solid(colour)
    back, w = rng.uniform(0.42, 0.6), rng.uniform(0.42, 0.5)
    shapes = [box((0, 0, 0.45), (w, w, 0.06), paint)]
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
        shapes = [
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
    shapes = [
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
        name, colour = pick(rng, "blue green turquoise orange white")
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
    for builder in (aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow)
    + (diningtable, dog, horse, motorbike, pottedplant, sheep, sofa, train, tvmonitor)
}

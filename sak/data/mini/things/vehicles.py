"""Vehicles. Own frame: the front towards -x, seen from the side at yaw 0 (thing.py)."""

from __future__ import annotations

import numpy as np

from sak.data.mini.primitives import Annulus, Capsule, Ellipsoid, Frustum, Polyhedron, Primitive, box, rotation
from sak.data.mini.texture import BLACK, COLOURS, GLASS, GREY, panes, pick, solid, stripes, vary, wood
from sak.data.mini.things.thing import Thing


def wheel(x: float, y: float, radius: float, width: float) -> list[Primitive]:
    return [
        Frustum((x, y - width / 2, radius), (x, y + width / 2, radius), radius, radius, solid(BLACK)),
        Frustum((x, y - width * 0.55, radius), (x, y + width * 0.55, radius), radius / 2, radius / 2, solid(GREY)),
    ]


def prism(outline, height: float, texture, centre=(0, 0, 0), axes=None) -> Polyhedron:
    """A convex outline [(x, z), ...] (counter-clockwise), pulled out along y to a height: wings, fins, sails, hulls."""
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
    shapes: list[Primitive] = [Annulus((x, 0, 0.34), (0, 1, 0), 0.275, 0.35, tyre) for x in (-0.52, 0.52)]
    shapes += [Annulus((x, 0, 0.34), (0, 1, 0), 0.0, 0.05, dark) for x in (-0.52, 0.52)]
    for x in (-0.52, 0.52):
        for angle in np.arange(4) * np.pi / 4:
            arm = 0.28 * np.asarray([np.cos(angle), 0, np.sin(angle)])
            hub = np.asarray([x, 0, 0.34])
            shapes.append(Capsule(hub - arm, hub + arm, 0.006, solid(GREY)))
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
    shapes: list[Primitive] = [
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


def bus(rng) -> Thing:
    name, colour = pick(rng, "red yellow blue white orange green")
    side = panes(colour, GLASS, 1.25, (0.15, 0.95), share=0.85)
    shapes: list[Primitive] = [
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
    shapes: list[Primitive] = [
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
    shapes: list[Primitive] = [
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

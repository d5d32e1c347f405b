"""Bicycle, bus, car and motorbike, in several kinds each. Own frame: front towards -x, seen from the side at yaw 0."""

from __future__ import annotations

import numpy as np

from sak.data.mini.dice import Dice
from sak.data.mini.primitives import Annulus, Capsule, Ellipsoid, Frustum, Primitive, box
from sak.data.mini.texture import BLACK, GLASS, GREY, PAINT, any_colour, below, panes, pick, solid
from sak.data.mini.things.thing import Thing

LAMP, TAIL_LAMP = (0.98, 0.95, 0.8), (0.75, 0.05, 0.05)


def wheel(x: float, y: float, radius: float, width: float) -> list[Primitive]:
    return [
        Frustum((x, y - width / 2, radius), (x, y + width / 2, radius), radius, radius, solid(BLACK)),
        Frustum((x, y - width * 0.55, radius), (x, y + width * 0.55, radius), radius / 2, radius / 2, solid(GREY)),
    ]


def four_wheels(front: float, back: float, y: float, radius: float, width: float) -> list[Primitive]:
    return [shape for x in (front, back) for s in (-1, 1) for shape in wheel(x, s * y, radius, width)]


def bicycle(rng: Dice) -> Thing:
    name, colour = pick(rng, PAINT)
    paint, dark, tyre = solid(colour), solid(BLACK), solid((0.1, 0.1, 0.1))
    kind = str(rng.choice(["bicycle", "racing bicycle", "bicycle with a basket"]))
    crank, rear, fork = (-0.05, 0, 0.32), (-0.52, 0, 0.34), (0.52, 0, 0.34)
    seat, head = (-0.2, 0, 0.88), (0.38, 0, 0.82)
    shapes: list[Primitive] = []
    for x in (-0.52, 0.52):
        shapes += [Annulus((x, 0, 0.34), (0, 1, 0), 0.275, 0.35, tyre), Annulus((x, 0, 0.34), (0, 1, 0), 0, 0.05, dark)]
        for angle in np.arange(4) * np.pi / 4:
            arm = 0.28 * np.asarray([np.cos(angle), 0, np.sin(angle)])
            shapes.append(Capsule(np.asarray([x, 0, 0.34]) - arm, np.asarray([x, 0, 0.34]) + arm, 0.006, solid(GREY)))
    if kind == "bicycle with a basket":  # a low step
        tubes = [(crank, seat), (crank, head), (crank, rear), (seat, rear), (head, fork), ((-0.1, 0, 0.55), head)]
        straw = solid(any_colour(rng))
        shapes += [box((0.62, 0, 0.92), (0.26, 0.3, 0.22), straw), Annulus(rear, (0, 1, 0), 0.35, 0.39, paint)]
    else:
        tubes = [(crank, seat), (crank, head), (seat, head), (crank, rear), (seat, rear), (head, fork)]
    if kind == "racing bicycle":  # low, curved handlebars
        shapes += [
            Capsule(head, (0.5, 0, 0.9), 0.025, dark),
            Capsule((0.5, -0.2, 0.9), (0.5, 0.2, 0.9), 0.025, dark),
        ]
        for s in (-0.2, 0.2):
            shapes += [
                Capsule((0.5, s, 0.9), (0.62, s, 0.86), 0.025, dark),
                Capsule((0.62, s, 0.86), (0.54, s, 0.74), 0.025, dark),
            ]
    else:
        shapes += [
            Capsule(head, (0.34, 0, 1.0), 0.025, dark),
            Capsule((0.34, -0.28, 1.03), (0.34, 0.28, 1.03), 0.03, dark),
        ]
    shapes += [Capsule(a, b, 0.03, paint) for a, b in tubes]
    shapes += [
        Ellipsoid((-0.22, 0, 0.95), (0.16, 0.09, 0.045), dark),
        Annulus((-0.05, 0.03, 0.32), (0, 1, 0), 0.05, 0.1, dark),
    ]
    return Thing("bicycle", shapes, f"{name} {kind}", voc="bicycle")


def motorbike(rng: Dice) -> Thing:
    name, colour = pick(rng, PAINT)
    paint, dark, metal = solid(colour), solid(BLACK), solid((0.62, 0.62, 0.64))
    if rng.random() < 0.4:  # a step through, a shield before the knees, small wheels
        shapes: list[Primitive] = [*wheel(-0.6, 0, 0.24, 0.14), *wheel(0.6, 0, 0.24, 0.14)]
        shapes += [
            Ellipsoid((-0.42, 0, 0.56), (0.42, 0.2, 0.22), paint),
            Ellipsoid((-0.4, 0, 0.8), (0.36, 0.15, 0.08), dark),
            box((0.08, 0, 0.28), (0.6, 0.3, 0.08), dark),
            box((0.42, 0, 0.6), (0.08, 0.4, 0.62), paint),
            Capsule((0.44, 0, 0.9), (0.6, 0, 0.24), 0.05, metal),
            Ellipsoid((0.6, 0, 0.46), (0.2, 0.1, 0.07), paint),
            Capsule((0.36, -0.3, 1.02), (0.36, 0.3, 1.02), 0.03, dark),
            Ellipsoid((0.48, 0, 0.96), 0.1, solid(LAMP)),
            Capsule((0.42, 0, 0.86), (0.38, 0, 1.02), 0.06, paint),
        ]
        return Thing("motorbike", shapes, f"{name} scooter", voc="motorbike")
    shapes = [*wheel(-0.7, 0, 0.34, 0.16), *wheel(0.72, 0, 0.34, 0.16)]
    shapes += [
        Ellipsoid((0.15, 0, 0.82), (0.34, 0.17, 0.17), paint),
        Ellipsoid((-0.5, 0, 0.8), (0.45, 0.16, 0.1), dark),
        Ellipsoid((-0.85, 0, 0.78), (0.22, 0.12, 0.1), paint),
        box((0.02, 0, 0.48), (0.55, 0.26, 0.36), metal),
        Capsule((0.42, 0, 0.95), (0.72, 0, 0.34), 0.06, metal),
        Capsule((0.35, -0.36, 1.06), (0.35, 0.36, 1.06), 0.035, dark),
        Capsule((-0.1, -0.17, 0.3), (-0.95, -0.17, 0.36), 0.06, metal),
        Ellipsoid((0.56, 0, 0.92), 0.13, solid(LAMP)),
        Ellipsoid((0.72, 0, 0.64), (0.3, 0.1, 0.07), paint),
    ]
    if rng.random() < 0.35:  # panniers
        shapes += [box((-0.75, s * 0.26, 0.66), (0.42, 0.16, 0.34), solid(any_colour(rng))) for s in (-1, 1)]
    return Thing("motorbike", shapes, f"{name} motorbike", voc="motorbike")


def bus(rng: Dice) -> Thing:
    name, colour = pick(rng, PAINT)
    second = any_colour(rng)
    kind = str(rng.choice(["bus", "double decker bus", "school bus"]))
    long, high = (8.4, 2.7) if kind == "bus" else (7.2, 4.0) if kind == "double decker bus" else (6.6, 2.4)
    middle = 0.4 + high / 2
    side = panes(colour, GLASS, 1.25, (2.2 - middle, 2.9 - middle), share=0.85)
    if kind == "double decker bus":
        upper = panes(colour, GLASS, 1.25, (3.5 - middle, 4.1 - middle), share=0.85)
        side = below(side, upper, 3.1 - middle, axis=2)
    elif rng.paint.random() < 0.4:
        side = below(solid(second), side, 1.4 - middle, axis=2)
    shapes: list[Primitive] = [
        box((0, 0, middle), (long, 2.4, high), side),
        box((0, 0, 0.55), (long + 0.02, 2.42, 0.22), solid(colour * 0.5)),
        box((0, 0, high + 0.45), (long - 0.8, 2.0, 0.12), solid(second)),
        box((long / 2, 0, 2.3), (0.06, 1.9, 0.7), solid(GLASS)),
        *four_wheels(-long * 0.29, long * 0.3, 1.1, 0.52, 0.3),
    ]
    front = -long / 2
    if kind == "school bus":  # an engine before the windscreen
        shapes += [
            box((front - 0.65, 0, 0.98), (1.4, 2.0, 1.05), solid(colour), taper=(0.06, 0.1)),
            box((front, 0, 2.15), (0.08, 2.1, 0.85), solid(GLASS)),
            *[Ellipsoid((front - 1.36, y, 0.95), 0.18, solid(LAMP)) for y in (-0.7, 0.7)],
        ]
    else:
        shapes += [
            box((front, 0, 2.05), (0.06, 2.1, 1.2), solid(GLASS)),
            box((front + 0.8, 0, 1.5), (0.9, 2.46, 2.0), solid(GLASS)),
            *[Ellipsoid((front - 0.02, y, 0.9), 0.17, solid(LAMP)) for y in (-0.75, 0.75)],
        ]
        if kind == "double decker bus":
            shapes.append(box((front, 0, 3.75), (0.06, 2.1, 0.7), solid(GLASS)))
    return Thing("bus", shapes, f"{name} {kind}", voc="bus")


def car(rng: Dice) -> Thing:
    name, colour = pick(rng, PAINT)
    paint, long = solid(colour), rng.uniform(0.9, 1.1)
    kind = str(rng.choice(["car", "estate car", "van", "pickup truck"]))
    windows = panes(colour, GLASS, 1.05, (-0.22, 0.17), share=0.9)
    shapes: list[Primitive] = [
        box((0, 0, 0.62), (4.1 * long, 1.7, 0.56), paint, taper=(0.04, 0.08)),
        box((0, 0, 0.4), (4.2 * long, 1.74, 0.14), solid(BLACK)),
        *four_wheels(-1.3 * long, 1.3 * long, 0.78, 0.36, 0.22),
    ]
    if kind == "car":
        shapes += [
            box((0.25, 0, 1.18), (2.5 * long, 1.5, 0.56), windows, taper=(0.38, 0.2)),
            box((-0.78 * long, 0, 1.14), (0.62, 1.25, 0.4), solid(GLASS), taper=(0.9, 0.15)),
        ]
    elif kind == "estate car":
        shapes += [
            box((0.62, 0, 1.2), (2.85 * long, 1.52, 0.62), windows, taper=(0.2, 0.16)),
            box((-0.62 * long, 0, 1.16), (0.7, 1.28, 0.42), solid(GLASS), taper=(0.9, 0.15)),
            *[Capsule((-0.3, s * 0.6, 1.55), (1.7, s * 0.6, 1.55), 0.03, solid(GREY)) for s in (-1, 1)],
        ]
    elif kind == "van":
        side = panes(colour, GLASS, 3.2, (0.12, 0.5), share=0.28) if rng.paint.random() < 0.6 else windows
        shapes += [
            box((0.45, 0, 1.4), (3.3 * long, 1.66, 1.2), side, taper=(0.1, 0.08)),
            box((-1.1 * long, 0, 1.35), (0.8, 1.45, 0.75), solid(GLASS), taper=(0.85, 0.1)),
        ]
    else:
        shapes += [
            box((-0.35 * long, 0, 1.2), (1.5, 1.5, 0.62), windows, taper=(0.25, 0.2)),
            box((-0.95 * long, 0, 1.14), (0.6, 1.28, 0.44), solid(GLASS), taper=(0.9, 0.15)),
            *[box((1.2 * long, s * 0.78, 1.0), (1.7 * long, 0.1, 0.34), paint) for s in (-1, 1)],
            box((2.0 * long, 0, 1.0), (0.1, 1.6, 0.34), paint),
        ]
        if rng.random() < 0.5:
            shapes.append(box((1.2 * long, 0, 1.15), (1.1, 0.9, 0.5), solid(any_colour(rng))))
    for y in (-0.62, 0.62):
        shapes.append(Ellipsoid((-2.05 * long, y, 0.68), (0.08, 0.2, 0.12), solid(LAMP)))
        shapes.append(Ellipsoid((2.05 * long, y, 0.7), (0.06, 0.18, 0.1), solid(TAIL_LAMP)))
    return Thing("car", shapes, f"{name} {kind}", voc="car")

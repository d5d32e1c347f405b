"""Bird, cat, cow, dog, horse and sheep. Own frame: head towards -x, seen from the side at yaw 0."""

from __future__ import annotations

import numpy as np

from sak.data.mini.primitives import Capsule, Ellipsoid, Frustum, Primitive, rotation
from sak.data.mini.texture import COLOURS, noise, solid, spots, stripes, vary
from sak.data.mini.things.thing import Thing

DARK = (0.08, 0.07, 0.07)


def legs(rng, x: float, y: float, high: float, thick: float, coat, hoof) -> list[Primitive]:
    """Four legs below a body whose belly is at `high`, the front and hind pair at -x and +x, caught in a step."""
    shapes = []
    for sx in (-1, 1):
        for sy in (-1, 1):
            step = rng.uniform(-0.18, 0.18) * high
            top, foot = (sx * x, sy * y, high), (sx * x + step, sy * y, thick * 0.7)
            shapes += [Frustum(foot, top, thick * 0.6, thick, coat), Ellipsoid(foot, thick * 0.75, hoof)]
    return shapes


def eyes(x: float, y: float, z: float, r: float) -> list[Primitive]:
    return [Ellipsoid((x, side * y, z), r, solid(DARK)) for side in (1, -1)]


def cat(rng) -> Thing:
    name = str(rng.choice(["grey", "orange", "black", "white", "brown"]))
    colour = vary(rng, COLOURS[name])
    coat = (
        stripes(colour, colour * 0.6, 0.07, axis=0, share=0.6) if rng.random() < 0.5 else noise(rng, colour, 0.06, 0.1)
    )
    shapes = []
    if rng.random() < 0.5:  # sitting upright, facing -x
        shapes += [
            Ellipsoid((0.05, 0, 0.13), (0.14, 0.12, 0.13), coat),
            Ellipsoid((-0.02, 0, 0.25), (0.09, 0.09, 0.17), coat, axes=rotation(1, -0.2)),
            Capsule((0.17, 0, 0.05), (0.3, 0.12, 0.06), 0.03, coat),
        ]
        shapes += [Capsule((-0.11, y, 0.03), (-0.07, y, 0.25), 0.032, coat) for y in (-0.045, 0.045)]
        head, z = -0.07, 0.44
    else:
        shapes += [
            Ellipsoid((0, 0, 0.24), (0.24, 0.09, 0.095), coat),
            Capsule((0.21, 0, 0.27), (0.33, 0, 0.42), 0.025, coat),
            Capsule((0.33, 0, 0.42), (0.3, 0, 0.55), 0.025, coat),
            *legs(rng, 0.16, 0.05, 0.2, 0.036, coat, coat),
        ]
        head, z = -0.27, 0.33
    shapes += [
        Ellipsoid((head, 0, z), (0.085, 0.1, 0.085), coat),
        Ellipsoid((head - 0.07, 0, z - 0.03), 0.038, solid((0.9, 0.85, 0.8))),
    ]
    shapes += [Frustum((head, s * 0.06, z + 0.05), (head, s * 0.075, z + 0.15), 0.038, 0.004, coat) for s in (-1, 1)]
    shapes += eyes(head - 0.075, 0.04, z + 0.02, 0.018)
    shapes.append(Ellipsoid((head - 0.108, 0, z - 0.02), 0.013, solid((0.85, 0.45, 0.45))))
    return Thing("cat", shapes, f"{name} cat", voc="cat")


def dog(rng) -> Thing:
    name = str(rng.choice(["brown", "beige", "black", "white", "brown"]))
    colour = vary(rng, COLOURS[name])
    coat = spots(rng, colour, COLOURS["white"], 0.3) if rng.random() < 0.3 else noise(rng, colour, 0.1, 0.08)
    dark = solid(colour * 0.55)
    shapes = [
        Capsule((-0.24, 0, 0.5), (0.24, 0, 0.48), 0.125, coat),
        Ellipsoid((-0.24, 0, 0.48), (0.16, 0.135, 0.17), coat),
        Capsule((-0.3, 0, 0.55), (-0.42, 0, 0.72), 0.08, coat),
        Ellipsoid((-0.46, 0, 0.76), (0.12, 0.1, 0.1), coat),
        Capsule((-0.54, 0, 0.73), (-0.68, 0, 0.7), 0.052, coat),
        Ellipsoid((-0.735, 0, 0.715), 0.03, solid(DARK)),
        Capsule((0.34, 0, 0.54), (0.5, 0, 0.74), 0.03, coat),
        *[Ellipsoid((-0.42, s * 0.1, 0.71), (0.05, 0.025, 0.11), dark) for s in (-1, 1)],
        *eyes(-0.555, 0.05, 0.79, 0.02),
        *legs(rng, 0.25, 0.08, 0.45, 0.052, coat, coat),
    ]
    return Thing("dog", shapes, f"{name} dog", voc="dog")


def cow(rng) -> Thing:
    name = str(rng.choice(["black and white", "brown and white", "brown"]))
    base = vary(rng, COLOURS["black"] if name.startswith("black") else (0.48, 0.26, 0.13), 0.03)
    coat = noise(rng, base, 0.3, 0.1) if name == "brown" else spots(rng, base, (0.93, 0.91, 0.88), 1.1)
    pink, horn = solid((0.87, 0.62, 0.58)), solid((0.85, 0.8, 0.68))
    shapes = [
        Capsule((-0.5, 0, 1.02), (0.55, 0, 1.02), 0.36, coat),
        Ellipsoid((0.05, 0, 0.9), (0.6, 0.36, 0.34), coat),
        Ellipsoid((0.42, 0, 0.62), (0.17, 0.15, 0.12), pink),
        Capsule((-0.75, 0, 1.15), (-1.02, 0, 1.25), 0.2, coat),
        Frustum((-1.0, 0, 1.34), (-1.38, 0, 1.05), 0.19, 0.12, coat),
        Ellipsoid((-1.38, 0, 1.04), (0.09, 0.125, 0.11), pink),
        Capsule((0.92, 0, 1.2), (0.98, 0, 0.6), 0.03, coat),
        Ellipsoid((0.98, 0, 0.55), (0.05, 0.05, 0.1), solid(DARK)),
        *[Frustum((-1.0, s * 0.14, 1.45), (-1.1, s * 0.34, 1.63), 0.04, 0.008, horn) for s in (-1, 1)],
        *[Ellipsoid((-0.96, s * 0.27, 1.38), (0.05, 0.13, 0.06), coat) for s in (-1, 1)],
        *eyes(-1.15, 0.15, 1.32, 0.03),
        *legs(rng, 0.58, 0.2, 0.8, 0.12, coat, solid(DARK)),
    ]
    return Thing("cow", shapes, f"{name} cow", voc="cow")


def horse(rng) -> Thing:
    name = str(rng.choice(["brown", "brown", "black", "white", "grey"]))
    colour = vary(rng, (0.42, 0.22, 0.1) if name == "brown" else COLOURS[name])
    coat, mane = (
        noise(rng, colour, 0.4, 0.06),
        solid(colour * 0.35 if rng.random() < 0.7 else np.asarray((0.85, 0.8, 0.65))),
    )
    shapes = [
        Capsule((-0.45, 0, 1.18), (0.5, 0, 1.2), 0.27, coat),
        Ellipsoid((0.55, 0, 1.18), (0.34, 0.28, 0.32), coat),
        Frustum((-0.58, 0, 1.25), (-1.02, 0, 1.85), 0.22, 0.12, coat),
        Frustum((-0.98, 0, 1.94), (-1.42, 0, 1.62), 0.14, 0.08, coat),
        Ellipsoid((-1.42, 0, 1.61), 0.09, coat),
        Ellipsoid((-1.02, 0, 1.88), 0.15, coat),
        Capsule((-0.5, 0, 1.48), (-0.93, 0, 2.02), 0.075, mane),
        Capsule((0.86, 0, 1.3), (1.06, 0, 0.65), 0.085, mane),
        *[Frustum((-0.97, s * 0.07, 1.98), (-0.98, s * 0.09, 2.16), 0.045, 0.006, coat) for s in (-1, 1)],
        *eyes(-1.16, 0.1, 1.86, 0.03),
        *legs(rng, 0.55, 0.15, 1.1, 0.1, coat, solid(DARK)),
    ]
    return Thing("horse", shapes, f"{name} horse", voc="horse")


def sheep(rng) -> Thing:
    wool = noise(rng, vary(rng, (0.9, 0.87, 0.79), 0.04), 0.1, 0.1)
    face = solid(vary(rng, (0.1, 0.09, 0.08) if rng.random() < 0.7 else (0.8, 0.74, 0.64), 0.02))
    shapes: list[Primitive] = [Ellipsoid((0, 0, 0.62), (0.48, 0.27, 0.28), wool)]
    for _ in range(11):
        angle, x = rng.uniform(0, 2 * np.pi), rng.uniform(-0.36, 0.38)
        place = (x, 0.2 * np.cos(angle), 0.65 + 0.2 * np.sin(angle))
        shapes.append(Ellipsoid(place, rng.uniform(0.13, 0.18), wool))
    shapes += [
        Capsule((-0.5, 0, 0.86), (-0.66, 0, 0.76), 0.09, face),
        Ellipsoid((-0.46, 0, 0.95), (0.12, 0.11, 0.08), wool),
        *[Ellipsoid((-0.5, s * 0.14, 0.88), (0.035, 0.08, 0.035), face) for s in (-1, 1)],
        *legs(rng, 0.28, 0.13, 0.42, 0.055, face, face),
    ]
    return Thing("sheep", shapes, "sheep", voc="sheep")


def bird(rng) -> Thing:
    name = str(rng.choice(["red", "blue", "yellow", "white", "black", "brown"]))
    colour = vary(rng, COLOURS[name])
    plume, wing = noise(rng, colour, 0.05, 0.12), noise(rng, colour * 0.6, 0.03, 0.25)
    belly, beak = solid(np.clip(colour * 0.5 + 0.45, 0, 1)), solid((0.92, 0.6, 0.12))
    lean = rotation(1, 0.35)
    shapes = [
        Ellipsoid((0, 0, 0.17), (0.14, 0.085, 0.09), plume, axes=lean.T),
        Ellipsoid((-0.03, 0, 0.155), (0.1, 0.075, 0.08), belly, axes=lean.T),
        Ellipsoid((-0.12, 0, 0.28), 0.065, plume),
        Frustum((-0.17, 0, 0.28), (-0.25, 0, 0.265), 0.024, 0.002, beak),
        Ellipsoid((0.19, 0, 0.1), (0.12, 0.045, 0.018), wing, axes=lean.T),
        *eyes(-0.155, 0.045, 0.3, 0.014),
    ]
    flying = rng.random() < 0.35
    for side in (-1, 1):
        if flying:
            up = rotation(0, side * 0.5)
            shapes.append(Ellipsoid((0.03, side * 0.2, 0.28), (0.08, 0.2, 0.016), wing, axes=up.T))
        else:
            shapes.append(Ellipsoid((0.04, side * 0.075, 0.17), (0.13, 0.022, 0.06), wing, axes=lean.T))
            shapes.append(Capsule((0.0, side * 0.03, 0.01), (0.0, side * 0.03, 0.1), 0.009, beak))
            shapes.append(Capsule((-0.05, side * 0.035, 0.008), (0.02, side * 0.03, 0.008), 0.009, beak))
    return Thing("bird", shapes, f"{'flying ' if flying else ''}{name} bird", voc="bird")

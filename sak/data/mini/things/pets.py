"""Bird, cat and dog, in several kinds each. Own frame: head towards -x, seen from the side at yaw 0."""

from __future__ import annotations

import numpy as np

from sak.data.mini.dice import Dice
from sak.data.mini.primitives import Capsule, Ellipsoid, Frustum, Primitive, Texture, rotation
from sak.data.mini.texture import COAT, fur, noise, pick, solid
from sak.data.mini.things.thing import Thing

DARK = (0.08, 0.07, 0.07)


def legs(rng: Dice, x: float, y: float, high: float, thick: float, coat: Texture, hoof: Texture) -> list[Primitive]:
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


def cat(rng: Dice) -> Thing:
    name, _, coat = fur(rng, 0.2)
    kind = str(rng.choice(["sitting", "standing", "lying"]))
    if kind == "sitting":  # upright, facing -x
        shapes = [
            Ellipsoid((0.05, 0, 0.13), (0.14, 0.12, 0.13), coat),
            Ellipsoid((-0.02, 0, 0.25), (0.09, 0.09, 0.17), coat, axes=rotation(1, -0.2)),
            Capsule((0.17, 0, 0.05), (0.3, 0.12, 0.06), 0.03, coat),
            *[Capsule((-0.11, y, 0.03), (-0.07, y, 0.25), 0.032, coat) for y in (-0.045, 0.045)],
        ]
        head, z = -0.07, 0.44
    elif kind == "standing":
        shapes = [
            Ellipsoid((0, 0, 0.24), (0.24, 0.09, 0.095), coat),
            Capsule((0.21, 0, 0.27), (0.33, 0, 0.42), 0.025, coat),
            Capsule((0.33, 0, 0.42), (0.3, 0, 0.55), 0.025, coat),
            *legs(rng, 0.16, 0.05, 0.2, 0.036, coat, coat),
        ]
        head, z = -0.27, 0.33
    else:
        shapes = [
            Ellipsoid((0.02, 0, 0.11), (0.25, 0.13, 0.11), coat),
            Ellipsoid((0.13, 0, 0.13), (0.13, 0.14, 0.12), coat),
            Capsule((0.24, 0.05, 0.04), (0.02, 0.17, 0.04), 0.03, coat),
            *[Capsule((-0.3, y, 0.035), (-0.12, y, 0.05), 0.034, coat) for y in (-0.07, 0.07)],
        ]
        head, z = -0.22, 0.23
    shapes += [
        Ellipsoid((head, 0, z), (0.085, 0.1, 0.085), coat),
        Ellipsoid((head - 0.07, 0, z - 0.03), 0.038, solid((0.9, 0.85, 0.8))),
        Ellipsoid((head - 0.108, 0, z - 0.02), 0.013, solid((0.85, 0.45, 0.45))),
        *[Frustum((head, s * 0.06, z + 0.05), (head, s * 0.075, z + 0.15), 0.038, 0.004, coat) for s in (-1, 1)],
        *eyes(head - 0.075, 0.04, z + 0.02, 0.018),
    ]
    return Thing("cat", shapes, f"{kind} {name} cat", voc="cat")


def dog(rng: Dice) -> Thing:
    name, colour, coat = fur(rng, 0.35)
    dark, kind = solid(colour * 0.55), str(rng.choice(["retriever", "shepherd", "dachshund", "sitting"]))
    x, z = -0.46, 0.76  # of the head
    if kind == "dachshund":
        x, z = -0.55, 0.46
        shapes: list[Primitive] = [
            Capsule((-0.32, 0, 0.26), (0.34, 0, 0.25), 0.1, coat),
            Capsule((-0.36, 0, 0.28), (-0.5, 0, 0.42), 0.07, coat),
            Capsule((0.42, 0, 0.28), (0.58, 0, 0.4), 0.022, coat),
            *legs(rng, 0.32, 0.07, 0.2, 0.045, coat, coat),
        ]
    elif kind == "sitting":
        x, z = -0.32, 0.86
        shapes = [
            Ellipsoid((0.1, 0, 0.2), (0.24, 0.19, 0.2), coat),
            Capsule((0.0, 0, 0.3), (-0.2, 0, 0.62), 0.14, coat),
            Capsule((-0.2, 0, 0.64), (-0.29, 0, 0.82), 0.08, coat),
            Capsule((0.3, 0, 0.08), (0.46, 0.1, 0.14), 0.032, coat),
            *[Capsule((-0.24, y, 0.05), (-0.19, y, 0.5), 0.05, coat) for y in (-0.08, 0.08)],
        ]
    else:
        shapes = [
            Capsule((-0.24, 0, 0.5), (0.24, 0, 0.48), 0.125, coat),
            Ellipsoid((-0.24, 0, 0.48), (0.16, 0.135, 0.17), coat),
            Capsule((-0.3, 0, 0.55), (-0.42, 0, 0.72), 0.08, coat),
            *legs(rng, 0.25, 0.08, 0.45, 0.052, coat, coat),
        ]
        if kind == "shepherd":  # a bushy tail that hangs
            shapes.append(Ellipsoid((0.44, 0, 0.36), (0.06, 0.06, 0.2), coat, axes=rotation(1, 0.5)))
        else:
            shapes.append(Capsule((0.34, 0, 0.54), (0.5, 0, 0.74), 0.03, coat))
    shapes += [
        Ellipsoid((x, 0, z), (0.12, 0.1, 0.1), coat),
        Capsule((x - 0.08, 0, z - 0.03), (x - 0.22, 0, z - 0.06), 0.052, coat),
        Ellipsoid((x - 0.275, 0, z - 0.045), 0.03, solid(DARK)),
        *eyes(x - 0.095, 0.05, z + 0.03, 0.02),
    ]
    if kind in ("shepherd", "sitting"):
        shapes += [Frustum((x + 0.02, s * 0.06, z + 0.06), (x, s * 0.08, z + 0.22), 0.05, 0.006, dark) for s in (-1, 1)]
    else:
        shapes += [Ellipsoid((x + 0.04, s * 0.1, z - 0.05), (0.05, 0.025, 0.11), dark) for s in (-1, 1)]
    phrase = "dachshund" if kind == "dachshund" else "dog"
    return Thing("dog", shapes, f"{'sitting ' if kind == 'sitting' else ''}{name} {phrase}", voc="dog")


def bird(rng: Dice) -> Thing:
    name, colour = pick(rng, f"{COAT} red blue yellow")
    plume, wing = noise(rng, colour, 0.05, 0.12), noise(rng, colour * 0.6, 0.03, 0.25)
    belly, beak = solid(np.clip(colour * 0.5 + 0.45, 0, 1)), solid((0.92, 0.6, 0.12))
    kind = str(rng.choice(["bird", "flying bird", "duck", "heron"]))
    lean = rotation(1, 0.35)
    if kind == "duck":
        shapes: list[Primitive] = [
            Ellipsoid((0, 0, 0.13), (0.2, 0.11, 0.11), plume),
            Ellipsoid((0.2, 0, 0.19), (0.08, 0.05, 0.03), wing, axes=rotation(1, -0.5)),
            Capsule((-0.13, 0, 0.19), (-0.17, 0, 0.31), 0.045, belly),
            Ellipsoid((-0.19, 0, 0.35), (0.075, 0.06, 0.06), plume),
            Ellipsoid((-0.29, 0, 0.335), (0.06, 0.04, 0.016), beak),
            *[Ellipsoid((0.04, s * 0.1, 0.15), (0.15, 0.022, 0.065), wing) for s in (-1, 1)],
            *eyes(-0.225, 0.045, 0.37, 0.014),
        ]
        return Thing("bird", shapes, f"{name} duck", voc="bird")
    if kind == "heron":
        shapes = [
            Ellipsoid((0.02, 0, 0.48), (0.2, 0.09, 0.1), plume, axes=lean.T),
            *[Ellipsoid((0.05, s * 0.08, 0.48), (0.19, 0.022, 0.07), wing, axes=lean.T) for s in (-1, 1)],
            Capsule((-0.13, 0, 0.54), (-0.2, 0, 0.68), 0.035, plume),
            Capsule((-0.2, 0, 0.68), (-0.13, 0, 0.86), 0.03, plume),
            Ellipsoid((-0.16, 0, 0.9), (0.07, 0.045, 0.045), belly),
            Frustum((-0.21, 0, 0.9), (-0.4, 0, 0.87), 0.022, 0.003, beak),
            *[Capsule((0.02, s * 0.035, 0.01), (0.03, s * 0.03, 0.42), 0.012, beak) for s in (-1, 1)],
            *eyes(-0.19, 0.035, 0.915, 0.012),
        ]
        return Thing("bird", shapes, f"{name} heron", voc="bird")
    shapes = [
        Ellipsoid((0, 0, 0.17), (0.14, 0.085, 0.09), plume, axes=lean.T),
        Ellipsoid((-0.03, 0, 0.155), (0.1, 0.075, 0.08), belly, axes=lean.T),
        Ellipsoid((-0.12, 0, 0.28), 0.065, plume),
        Frustum((-0.17, 0, 0.28), (-0.25, 0, 0.265), 0.024, 0.002, beak),
        Ellipsoid((0.19, 0, 0.1), (0.12, 0.045, 0.018), wing, axes=lean.T),
        *eyes(-0.155, 0.045, 0.3, 0.014),
    ]
    for side in (-1, 1):
        if kind == "flying bird":
            up = rotation(0, side * 0.5)
            shapes.append(Ellipsoid((0.03, side * 0.2, 0.28), (0.08, 0.2, 0.016), wing, axes=up.T))
        else:
            shapes.append(Ellipsoid((0.04, side * 0.075, 0.17), (0.13, 0.022, 0.06), wing, axes=lean.T))
            shapes.append(Capsule((0.0, side * 0.03, 0.01), (0.0, side * 0.03, 0.1), 0.009, beak))
            shapes.append(Capsule((-0.05, side * 0.035, 0.008), (0.02, side * 0.03, 0.008), 0.009, beak))
    return Thing("bird", shapes, f"{'flying ' if kind == 'flying bird' else ''}{name} bird", voc="bird")

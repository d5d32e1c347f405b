"""Cow, horse and sheep, with the head up or grazing. Own frame: head towards -x, seen from the side at yaw 0."""

from __future__ import annotations

import itertools

import numpy as np

from sak.data.mini.dice import Dice
from sak.data.mini.primitives import Capsule, Ellipsoid, Frustum, Primitive, box
from sak.data.mini.texture import COAT, PAINT, any_colour, fur, noise, pick, solid
from sak.data.mini.things.pets import DARK, eyes, legs
from sak.data.mini.things.thing import Thing


def cow(rng: Dice) -> Thing:
    name, _, coat = fur(rng, 1.1)
    pink, horn = solid((0.87, 0.62, 0.58)), solid((0.85, 0.8, 0.68))
    grazing = rng.random() < 0.35
    skull, nose = ((-1.02, 0.8), (-1.3, 0.42)) if grazing else ((-1.0, 1.34), (-1.38, 1.05))
    (x, z), (nx, nz) = skull, nose
    shapes: list[Primitive] = [
        Capsule((-0.5, 0, 1.02), (0.55, 0, 1.02), 0.36, coat),
        Ellipsoid((0.05, 0, 0.9), (0.6, 0.36, 0.34), coat),
        Ellipsoid((0.42, 0, 0.62), (0.17, 0.15, 0.12), pink),
        Capsule((-0.7, 0, 1.12), (x - 0.02, 0, z - 0.05), 0.2, coat),
        Frustum((x, 0, z), (nx, 0, nz), 0.19, 0.12, coat),
        Ellipsoid((nx, 0, nz), (0.09, 0.125, 0.11), pink),
        Capsule((0.92, 0, 1.2), (0.98, 0, 0.6), 0.03, coat),
        Ellipsoid((0.98, 0, 0.55), (0.05, 0.05, 0.1), solid(DARK)),
        *[Ellipsoid((x + 0.04, s * 0.27, z + 0.04), (0.05, 0.13, 0.06), coat) for s in (-1, 1)],
        *eyes((x + nx) / 2 + 0.04, 0.15, (z + nz) / 2 + 0.12, 0.03),
        *legs(rng, 0.58, 0.2, 0.8, 0.12, coat, solid(DARK)),
    ]
    if rng.random() < 0.6:
        shapes += [Frustum((x, s * 0.14, z + 0.11), (x - 0.1, s * 0.34, z + 0.29), 0.04, 0.008, horn) for s in (-1, 1)]
    return Thing("cow", shapes, f"{'grazing ' if grazing else ''}{name} cow", voc="cow")


def horse(rng: Dice) -> Thing:
    name, colour, coat = fur(rng, 1.0)
    mane = solid(colour * 0.35 if rng.paint.random() < 0.7 else np.asarray((0.85, 0.8, 0.65)))
    grazing, saddled = rng.random() < 0.3, rng.random() < 0.3
    poll, nose = ((-1.14, 0.78), (-1.36, 0.32)) if grazing else ((-1.02, 1.88), (-1.42, 1.61))
    (x, z), (nx, nz) = poll, nose
    shapes: list[Primitive] = [
        Capsule((-0.45, 0, 1.18), (0.5, 0, 1.2), 0.27, coat),
        Ellipsoid((0.55, 0, 1.18), (0.34, 0.28, 0.32), coat),
        Frustum((-0.58, 0, 1.25), (x, 0, z - 0.03), 0.22, 0.12, coat),
        Frustum((x + 0.03, 0, z + 0.05), (nx, 0, nz), 0.14, 0.08, coat),
        Ellipsoid((nx, 0, nz), 0.09, coat),
        Ellipsoid((x, 0, z), 0.15, coat),
        Capsule((-0.5, 0, 1.48), (x + 0.06, 0, z + 0.16), 0.075, mane),
        Capsule((0.86, 0, 1.3), (1.06, 0, 0.65), 0.085, mane),
        *[Frustum((x + 0.05, s * 0.07, z + 0.1), (x + 0.04, s * 0.09, z + 0.28), 0.045, 0.006, coat) for s in (-1, 1)],
        *eyes((2 * x + nx) / 3, 0.11, (2 * z + nz) / 3 + 0.07, 0.03),
        *legs(rng, 0.55, 0.15, 1.1, 0.1, coat, solid(DARK)),
    ]
    if saddled:
        leather = solid(any_colour(rng, PAINT))
        shapes += [
            Ellipsoid((0.02, 0, 1.45), (0.28, 0.2, 0.06), leather),
            box((0.02, 0, 1.2), (0.4, 0.6, 0.36), leather),
        ]
    return Thing("horse", shapes, f"{'grazing ' if grazing else ''}{name} horse", voc="horse")


def sheep(rng: Dice) -> Thing:
    name, colour = pick(rng, COAT)
    wool = noise(rng, colour, 0.1, 0.1)
    face = solid(colour * 0.4 if rng.paint.random() < 0.6 else np.clip(colour * 0.5 + 0.4, 0, 1))
    kind = str(rng.choice(["sheep", "sheep", "ram", "shorn sheep"]))
    grazing = rng.random() < 0.35
    x, z = (-0.62, 0.34) if grazing else (-0.5, 0.86)
    shapes: list[Primitive] = [
        Ellipsoid((0, 0, 0.62), (0.48, 0.27, 0.28), wool),
        Capsule((-0.36, 0, 0.7), (x, 0, z), 0.11, wool),
        Capsule((x, 0, z), (x - 0.16, 0, z - 0.1), 0.09, face),
        *[Ellipsoid((x, s * 0.14, z + 0.02), (0.035, 0.08, 0.035), face) for s in (-1, 1)],
        *eyes(x - 0.1, 0.07, z + 0.03, 0.015),
        *legs(rng, 0.28, 0.13, 0.42, 0.055, face, face),
    ]
    if kind != "shorn sheep":
        shapes.append(Ellipsoid((x + 0.04, 0, z + 0.09), (0.12, 0.11, 0.08), wool))
        for _ in range(11):
            angle, along = rng.uniform(0, 2 * np.pi), rng.uniform(-0.36, 0.38)
            place = (along, 0.2 * np.cos(angle), 0.65 + 0.2 * np.sin(angle))
            shapes.append(Ellipsoid(place, rng.uniform(0.13, 0.18), wool))
    if kind == "ram":
        for s in (-1, 1):
            curl = [(0.0, 0.07), (0.12, 0.12), (0.17, 0.02), (0.1, -0.07)]  # behind the ear and forwards again
            points = [(x + dx, s * (0.1 + 0.03 * i), z + dz) for i, (dx, dz) in enumerate(curl)]
            shapes += [Capsule(a, b, 0.04, solid((0.75, 0.68, 0.52))) for a, b in itertools.pairwise(points)]
    return Thing("sheep", shapes, f"{'grazing ' if grazing else ''}{name} {kind}", voc="sheep")

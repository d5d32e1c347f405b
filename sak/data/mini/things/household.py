"""Bottle, potted plant and screen, in several kinds each. Own frame: the front towards -y (thing.py)."""

from __future__ import annotations

import itertools

import numpy as np

from sak.data.mini.dice import Dice
from sak.data.mini.primitives import Capsule, Ellipsoid, Frustum, Primitive, box, rotation
from sak.data.mini.texture import PAINT, any_colour, checker, front, noise, pick, solid, stripes
from sak.data.mini.things.thing import Thing, with_article


def bottle(rng: Dice) -> Thing:
    name, colour = pick(rng, PAINT)
    glass, label, cap = solid(colour), solid(any_colour(rng)), solid(any_colour(rng))
    kind = str(rng.choice(["wine bottle", "water bottle", "flask", "jug"]))
    r, tall = rng.uniform(0.036, 0.048), rng.uniform(0.29, 0.37)
    if kind == "wine bottle":
        profile = [(0.0, 1.0), (0.56, 1.0), (0.74, 0.36), (1.0, 0.32)]
    elif kind == "water bottle":  # a short neck, waists
        profile = [(0.0, 0.95), (0.28, 1.0), (0.36, 0.8), (0.44, 1.0), (0.7, 1.0), (0.9, 0.4), (0.96, 0.4)]
    elif kind == "flask":  # straight, with a wide lid
        profile = [(0.0, 0.95), (0.8, 0.95), (0.84, 0.8), (0.86, 0.8)]
    else:  # a round belly, a handle
        profile = [(0.0, 0.8), (0.25, 1.25), (0.5, 1.1), (0.72, 0.5), (0.95, 0.45)]
    shapes: list[Primitive] = [
        Frustum((0, 0, a * tall), (0, 0, b * tall), p * r, q * r, glass)
        for (a, p), (b, q) in itertools.pairwise(profile)
    ]
    top, width = profile[-1]
    shapes.append(Frustum((0, 0, top * tall), (0, 0, (top + 0.08) * tall), width * r * 1.25, width * r * 1.2, cap))
    if kind == "jug":
        loop = [(0.3, 0.48), (0.95, 0.56), (1.35, 0.75), (0.4, 0.9)]  # (radii, heights) of its joints
        points = [(x * 1.15 * r, 0, z * tall) for x, z in loop]
        shapes += [Capsule(a, b, 0.18 * r, glass) for a, b in itertools.pairwise(points)]
    else:
        shapes.append(Frustum((0, 0, 0.14 * tall), (0, 0, 0.27 * tall), 1.03 * r, 1.03 * r, label))
    return Thing("bottle", shapes, f"{name} {'bottle' if kind in ('flask', 'jug') else kind}", voc="bottle")


def pottedplant(rng: Dice) -> Thing:
    name, colour = pick(rng, PAINT)
    leaf = any_colour(rng, "green green green green turquoise purple") * 0.85
    high = rng.uniform(0.22, 0.34)
    pot = stripes(colour, any_colour(rng), 0.1, axis=2) if rng.paint.random() < 0.3 else solid(colour)
    shapes: list[Primitive] = [
        Frustum((0, 0, 0), (0, 0, high), 0.6 * high, 0.85 * high, pot),
        Frustum((0, 0, high * 0.86), (0, 0, high), 0.93 * high, 0.95 * high, solid(colour * 0.85)),
    ]
    kind = str(rng.choice(["long leaves", "bush", "broad leaves", "cactus", "flowers", "palm"]))
    stalk, petals = solid((0.3, 0.25, 0.1)), solid(any_colour(rng, "red yellow pink white purple orange"))
    root, up = np.asarray([0, 0, high]), np.asarray([0, 0, 1.0])
    if kind == "cactus":
        body = noise(rng, leaf, 0.04, 0.3)
        shapes.append(Capsule(root, root + 0.42 * up, 0.1, body))
        for s in (-1, 1):
            bend = root + np.asarray([s * 0.2, 0, rng.uniform(0.1, 0.22)])
            shapes += [
                Capsule(bend - (s * 0.2, 0, 0), bend, 0.055, body),
                Capsule(bend, bend + 0.17 * up, 0.055, body),
            ]
    else:
        shapes.append(Capsule(root, root + (0.6 if kind == "palm" else 0.25) * up, 0.02, stalk))
        for i in range(9):
            angle, lean = i * 2.4 + rng.uniform(-0.3, 0.3), rng.uniform(0.25, 1.0)
            out = np.asarray([np.cos(angle) * np.sin(lean), np.sin(angle) * np.sin(lean), np.cos(lean)])
            green = noise(rng, leaf * rng.paint.uniform(0.75, 1.3), 0.1, 0.2)
            turned = rotation(0, lean * np.cos(angle)) @ rotation(2, angle)
            if kind == "long leaves":
                shapes.append(Frustum(root, root + out * rng.uniform(0.4, 0.7), 0.06, 0.012, green))
            elif kind == "bush":
                shapes.append(Ellipsoid(root + 0.22 * up + out * 0.17, rng.uniform(0.11, 0.17), green))
            elif kind == "broad leaves":
                place = root + 0.12 * up + out * rng.uniform(0.22, 0.42)
                shapes.append(Ellipsoid(place, (0.12, 0.12, 0.03), green, axes=turned))
            elif kind == "flowers":
                place = root + out * rng.uniform(0.3, 0.45)
                shapes += [Capsule(root, place, 0.012, green), Ellipsoid(place, (0.065, 0.065, 0.045), petals)]
            else:
                place, down = root + 0.6 * up, out * (1, 1, 0.3)
                shapes.append(Frustum(place, place + down * rng.uniform(0.35, 0.5), 0.055, 0.01, green))
    phrase = str(rng.choice(["potted plant", "plant in a pot"]))
    if kind in ("cactus", "flowers"):
        phrase = f"plant with flowers in {with_article(name)} pot" if kind == "flowers" else "cactus plant"
    elif rng.random() < 0.5:
        phrase = f"plant in {with_article(name)} pot"
    return Thing("pottedplant", shapes, phrase, voc="pottedplant")


def tvmonitor(rng: Dice) -> Thing:
    kind = str(rng.choice(["television", "monitor", "old television"]))
    w, h = rng.uniform(0.55, 0.95), rng.uniform(0.36, 0.55)
    case = solid(any_colour(rng, f"black black black {PAINT}"))
    z = 0.1 + h / 2
    if kind == "old television":  # a deep box, an aerial, knobs beside the screen
        w, z = h * 1.35, 0.05 + h / 2
        bezel = front(_picture(rng, w), case, (w / 2 - 0.05, h / 2 - 0.05))
        shapes: list[Primitive] = [
            box((0, -0.1, z), (w, 0.12, h), bezel),
            box((0, 0.14, z), (w * 0.9, 0.38, h * 0.9), case, taper=(0.1, 0.2)),
            *[
                Capsule((0, 0.1, z + h / 2), (s * 0.18, 0.1, z + h / 2 + 0.25), 0.008, solid((0.7, 0.7, 0.7)))
                for s in (-1, 1)
            ],
            *[box((s * w * 0.35, 0, 0.03), (0.06, 0.2, 0.06), case) for s in (-1, 1)],
        ]
    else:
        shapes = [
            box((0, 0, z), (w, 0.07, h), front(_picture(rng, w), case, (w / 2 - 0.035, h / 2 - 0.035))),
            box((0, 0.06, z), (w * 0.5, 0.09, h * 0.6), case),
        ]
        if kind == "monitor":
            shapes += [
                Frustum((0, 0.02, 0.01), (0, 0.02, 0.14), 0.04, 0.04, case),
                Frustum((0, 0.02, 0), (0, 0.02, 0.025), 0.17, 0.15, case),
            ]
        else:
            shapes += [Capsule((s * w / 3, 0.02, 0.02), (s * w / 3.4, 0.02, 0.12), 0.02, case) for s in (-1, 1)]
            shapes += [Capsule((s * w / 3, -0.1, 0.015), (s * w / 3, 0.12, 0.015), 0.018, case) for s in (-1, 1)]
    return Thing("tvmonitor", shapes, kind, voc="tvmonitor")


def _picture(rng: Dice, w: float):
    """What a screen shows: nothing, a landscape of colours, bars or windows."""
    a, b = any_colour(rng), any_colour(rng)
    kind = rng.paint.integers(4)
    if kind == 0:
        return solid((0.04, 0.05, 0.08))
    if kind == 1:
        return noise(rng, a, w / 2, 0.9, b)
    return stripes(a, b, w / 3, axis=0) if kind == 2 else checker(a, b, w / 4, axes=(0, 2))

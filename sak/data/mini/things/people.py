"""People of capsules and ellipsoids in varied poses; every primitive carries the PASCAL-Part name of its body part.

Own frame: feet on z = 0, face towards -y, so the person's left side is at +x.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sak.data.mini.dice import Dice
from sak.data.mini.primitives import Capsule, Ellipsoid, Frustum, Primitive, Texture
from sak.data.mini.texture import Colour, any_colour, cloth, pick, solid, vary
from sak.data.mini.things.thing import Thing, with_article

SKIN = ((0.93, 0.76, 0.64), (0.82, 0.62, 0.47), (0.60, 0.41, 0.28), (0.36, 0.24, 0.17))
HAIR = ((0.08, 0.06, 0.05), (0.28, 0.16, 0.08), (0.62, 0.45, 0.18), (0.55, 0.53, 0.50), (0.50, 0.20, 0.08))
SHIRTS = "red blue green yellow white black orange pink purple turquoise grey brown"
TROUSERS = ((0.13, 0.17, 0.33), (0.10, 0.10, 0.11), (0.45, 0.38, 0.27), (0.35, 0.36, 0.38), (0.25, 0.16, 0.10))

POSES = {  # name: how a caption puts it
    "standing": "standing person",
    "walking": "walking person",
    "raised": "person with raised arms",
    "waving": "waving person",
    "hips": "person with hands on the hips",
    "sitting": "sitting person",
}


def limb_direction(swing: float, spread: float, side: int) -> np.ndarray:
    """Unit vector of a limb that hangs down, swung forward by `swing` and out to its side by `spread` (radians)."""
    return np.asarray(
        [side * np.sin(spread), -np.sin(swing) * np.cos(spread), -np.cos(swing) * np.cos(spread)], np.float32
    )


def arm_angles(rng: Dice, pose: str, side: int, stride: float) -> tuple[float, float, float, float]:
    """(upper swing, upper spread, lower swing, lower spread) of one arm."""
    if pose == "raised" or (pose == "waving" and side == 1):
        spread = rng.uniform(1.7, 2.6)
        return 0.1, spread, 0.1, spread + rng.uniform(-0.2, 0.5)
    if pose == "hips":
        return 0.0, 0.75, 0.15, -0.75
    if pose == "walking":
        return side * stride, 0.15, side * stride + 0.5, 0.05
    if pose == "sitting":
        return rng.uniform(0.2, 0.6), 0.2, rng.uniform(1.1, 1.5), -0.1
    bend = rng.uniform(0.1, 1.4) if rng.random() < 0.4 else rng.uniform(0.0, 0.3)
    return rng.uniform(-0.1, 0.2), rng.uniform(0.12, 0.3), bend, rng.uniform(-0.1, 0.15)


def leg_angles(rng: Dice, pose: str, side: int, stride: float) -> tuple[float, float, float]:
    """(upper swing, lower swing, spread) of one leg."""
    if pose == "sitting":
        return rng.uniform(1.35, 1.5), rng.uniform(-0.1, 0.25), 0.12
    if pose == "walking":
        swing = -side * stride
        return swing, min(swing, 0.0) - rng.uniform(0.05, 0.4) * (swing < 0), 0.03
    spread = rng.uniform(0.02, 0.2)
    return 0.0, 0.0, spread


def person(rng: Dice, pose: str | None = None) -> Thing:
    pose = pose or str(rng.choice(list(POSES)[:-1]))
    h = rng.uniform(1.5, 1.9)
    wide = rng.uniform(0.9, 1.25)
    skin, hair = one_of(rng, SKIN), one_of(rng, HAIR)
    shirt_name, colour = pick(rng, SHIRTS)
    shirt = cloth(rng, colour, 0.25)
    trousers = one_of(rng, TROUSERS) if rng.paint.random() < 0.7 else solid(any_colour(rng, SHIRTS))
    sleeve = shirt if rng.random() < 0.6 else skin
    shin = trousers if rng.random() < 0.75 else skin
    shoe = solid(any_colour(rng, "black white brown red"))

    stride = rng.uniform(0.3, 0.6)
    leg, arm = 0.245 * h, 0.165 * h
    angles = {side: leg_angles(rng, pose, side, stride) for side in (1, -1)}
    reach = {side: leg * (np.cos(up) + np.cos(low)) * np.cos(spread) for side, (up, low, spread) in angles.items()}
    hip = max(reach.values()) + 0.03 * h
    shoulder = hip + 0.29 * h
    shapes = [
        Ellipsoid((0, 0, hip + 0.18 * h), (0.105 * h * wide, 0.068 * h * wide, 0.15 * h), shirt, part="torso"),
        Ellipsoid((0, 0, hip + 0.04 * h), (0.09 * h * wide, 0.066 * h * wide, 0.085 * h), trousers, part="torso"),
        Capsule((-0.085 * h, 0, shoulder - 0.02 * h), (0.085 * h, 0, shoulder - 0.02 * h), 0.045 * h, shirt, "torso"),
        Frustum((0, 0, shoulder), (0, 0, shoulder + 0.07 * h), 0.035 * h, 0.03 * h, skin, "neck"),
    ]
    if pose != "sitting" and rng.random() < 0.2:  # a skirt; it belongs to the torso, as a coat's tails do
        skirt = rng.uniform(0.12, 0.2) * h
        shapes.append(
            Frustum((0, 0, hip + 0.06 * h), (0, 0, hip - skirt), 0.085 * h * wide, 0.15 * h, trousers, part="torso")
        )
    shapes += head(rng, h, shoulder, skin, hair)
    for side, letter in ((1, "l"), (-1, "r")):
        swing, spread, low_swing, low_spread = arm_angles(rng, pose, side, stride)
        a = np.asarray([side * 0.125 * h * wide**0.5, 0, shoulder - 0.03 * h], np.float32)
        b = a + arm * limb_direction(swing, spread, side)
        c = b + arm * 0.9 * limb_direction(low_swing, low_spread, side)
        shapes += [
            Capsule(a, b, 0.032 * h * wide, shirt, letter + "uarm"),
            Capsule(b, c, 0.026 * h * wide, sleeve, letter + "larm"),
            Ellipsoid(c + 0.03 * h * (c - b) / np.linalg.norm(c - b), 0.031 * h, skin, part=letter + "hand"),
        ]
        up, low, spread = angles[side]
        a = np.asarray([side * 0.055 * h * wide, 0, hip], np.float32)
        b = a + leg * limb_direction(up, spread, side)
        c = b + leg * limb_direction(low, spread * 0.5, side)
        shapes += [
            Capsule(a, b, 0.052 * h * wide, trousers, letter + "uleg"),
            Capsule(b, c, 0.038 * h * wide, shin, letter + "lleg"),
            Capsule(c, c + np.asarray([0, -0.075 * h, -0.01 * h]), 0.03 * h, shoe, letter + "foot"),
        ]
    lowest = min(shape.corners()[2].min() for shape in shapes if shape.part.endswith("foot"))
    phrase = POSES[pose] + (f" in {with_article(shirt_name)} shirt" if rng.random() < 0.5 else "")
    return Thing("person", shapes, phrase, voc="person").move((0, 0, -lowest))


def one_of(rng: Dice, colours: Sequence[Colour]) -> Texture:
    return solid(vary(rng, colours[int(rng.paint.integers(len(colours)))], 0.03))


def head(rng: Dice, h: float, shoulder: float, skin: Texture, hair: Texture) -> list[Primitive]:
    """Head, ears, eyes, nose and hair; long hair hangs down the neck, and some wear hats, which count as hair."""
    z, r = shoulder + 0.125 * h, 0.062 * h
    shapes: list[Primitive] = [
        Ellipsoid((0, 0, z), (r, 1.1 * r, 1.3 * r), skin, part="head"),
        Ellipsoid((0, 0.25 * r, z + 0.35 * r), (1.08 * r, 1.08 * r, 1.12 * r), hair, part="hair"),
        Ellipsoid((0, -1.1 * r, z - 0.1 * r), 0.2 * r, skin, part="nose"),
    ]
    dark = solid((0.08, 0.07, 0.07))
    for side, letter in ((1, "l"), (-1, "r")):
        shapes.append(Ellipsoid((side * 0.4 * r, -1.0 * r, z + 0.12 * r), 0.17 * r, dark, part=letter + "eye"))
        shapes.append(Ellipsoid((side * r, 0, z), 0.28 * r, skin, part=letter + "ear"))
    if rng.random() < 0.4:
        shapes.append(Ellipsoid((0, 0.5 * r, z - 0.7 * r), (r, 0.75 * r, 1.5 * r), hair, part="hair"))
    if rng.random() < 0.2:
        hat, brim = solid(any_colour(rng)), z + 0.75 * r
        shapes.append(Frustum((0, 0, brim), (0, 0, brim + 0.15 * r), 1.7 * r, 1.6 * r, hat, part="hair"))
        shapes.append(Frustum((0, 0, brim), (0, 0, brim + 1.1 * r), 1.15 * r, 0.95 * r, hat, part="hair"))
    return shapes

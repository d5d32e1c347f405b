"""Chair, dining table and sofa, in several kinds each. Own frame: the front towards -y (thing.py)."""

from __future__ import annotations

import numpy as np

from sak.data.mini.dice import Dice
from sak.data.mini.primitives import Capsule, Ellipsoid, Frustum, Primitive, box, rotation
from sak.data.mini.texture import BLACK, PAINT, any_colour, cloth, furniture, pick, solid
from sak.data.mini.things.thing import Thing


def four_legs(w: float, d: float, high: float, radius: float, texture) -> list[Primitive]:
    """Legs under the corners of a plate of w x d metres."""
    return [
        Capsule((x * w / 2, y * d / 2, radius), (x * w / 2.1, y * d / 2.1, high), radius, texture)
        for x in (-1, 1)
        for y in (-1, 1)
    ]


def chair(rng: Dice) -> Thing:
    name, colour = pick(rng, PAINT)
    paint, seat = furniture(rng, colour), cloth(rng, colour, 0.15)
    back, w = rng.uniform(0.42, 0.6), rng.uniform(0.42, 0.5)
    kind = str(rng.choice(["chair", "chair", "swivel chair", "armchair"]))
    shapes: list[Primitive] = [box((0, 0, 0.45), (w, w, 0.06), seat if kind != "chair" else paint)]
    if kind != "chair" or rng.random() < 0.4:
        shapes.append(
            box((0, w / 2 - 0.02, 0.52 + back / 2), (w, 0.05, back * 0.9), seat if kind != "chair" else paint)
        )
    elif rng.random() < 0.5:  # rungs across
        for z in (0.25, 0.6, 0.95):
            shapes.append(box((0, w / 2 - 0.02, 0.48 + back * z), (w, 0.035, 0.09), paint))
        for x in (-1, 1):
            shapes.append(
                Capsule((x * w / 2.2, w / 2 - 0.02, 0.45), (x * w / 2.2, w / 2 - 0.02, 0.5 + back), 0.024, paint)
            )
    else:  # bars upright
        for x in np.linspace(-1, 1, 5):
            shapes.append(
                Capsule((x * w / 2.2, w / 2 - 0.02, 0.45), (x * w / 2.2, w / 2 - 0.02, 0.5 + back), 0.018, paint)
            )
        shapes.append(box((0, w / 2 - 0.02, 0.5 + back), (w + 0.04, 0.045, 0.08), paint))
    if kind == "swivel chair":
        shapes += [
            Capsule((0, 0, 0.1), (0, 0, 0.42), 0.035, solid(BLACK)),
            *[
                Capsule((0, 0, 0.1), (0.28 * np.cos(a), 0.28 * np.sin(a), 0.05), 0.03, solid(BLACK))
                for a in np.arange(5) * 2 * np.pi / 5
            ],
        ]
    else:
        shapes += four_legs(w * 0.9, w * 0.9, 0.43, 0.024, paint)
    if kind == "armchair":
        for x in (-1, 1):
            shapes.append(box((x * w / 2, 0, 0.66), (0.06, w, 0.05), paint))
            shapes.append(Capsule((x * w / 2, -w / 2.3, 0.44), (x * w / 2, -w / 2.3, 0.64), 0.022, paint))
    return Thing("chair", shapes, f"{name} {'chair' if kind == 'armchair' else kind}", voc="chair")


def diningtable(rng: Dice) -> Thing:
    name, colour = pick(rng, PAINT)
    high, long, deep = rng.uniform(0.7, 0.78), rng.uniform(1.2, 1.8), rng.uniform(0.75, 1.0)
    top = furniture(rng, colour)
    kind = str(rng.choice(["round", "plain", "trestles", "cloth"]))
    if kind == "round":
        r = deep * 0.62
        shapes: list[Primitive] = [
            Frustum((0, 0, high - 0.05), (0, 0, high), r, r, top),
            Frustum((0, 0, 0.05), (0, 0, high - 0.05), 0.05, 0.07, top),
            Frustum((0, 0, 0), (0, 0, 0.06), 0.32, 0.1, top),
        ]
        return Thing("table", shapes, f"round {name} dining table", voc="diningtable", top=high)
    shapes = [box((0, 0, high - 0.03), (long, deep, 0.06), top)]
    if kind == "trestles":
        for x in (-1, 1):
            a = x * (long / 2 - 0.2)
            for s in (-1, 1):
                shapes.append(Capsule((a, s * deep * 0.42, 0.03), (a, -s * deep * 0.3, high - 0.06), 0.035, top))
        shapes.append(Capsule((-long / 2 + 0.2, 0, high * 0.45), (long / 2 - 0.2, 0, high * 0.45), 0.03, top))
    else:
        for x in (-1, 1):
            for y in (-1, 1):
                place = np.asarray([x * (long / 2 - 0.07), y * (deep / 2 - 0.07), high / 2 - 0.03])
                shapes.append(box(place, (0.07, 0.07, high - 0.06), top))
        if kind == "plain":
            shapes.append(box((0, 0, high - 0.1), (long - 0.2, deep - 0.2, 0.1), top))
        else:  # a tablecloth that hangs down on all sides
            linen = cloth(rng, any_colour(rng), 0.3)
            shapes.append(box((0, 0, high - 0.11), (long + 0.05, deep + 0.05, 0.24), linen, taper=(-0.03, -0.05)))
    return Thing("table", shapes, f"{name} dining table", voc="diningtable", top=high + 0.01 * (kind == "cloth"))


def sofa(rng: Dice) -> Thing:
    name, colour = pick(rng, PAINT)
    fabric, w = cloth(rng, colour, 0.25), rng.uniform(1.5, 2.1)
    cushion = cloth(rng, any_colour(rng) if rng.paint.random() < 0.3 else np.clip(colour * 1.12, 0, 1), 0.2)
    kind = str(rng.choice(["soft", "slender", "corner"]))
    if kind == "slender":  # thin arms, on visible legs
        shapes: list[Primitive] = [
            box((0, 0, 0.34), (w, 0.75, 0.16), fabric),
            box((0, 0.34, 0.66), (w, 0.12, 0.5), fabric, axes=rotation(0, 0.15)),
            *[box((x * w / 2, 0, 0.45), (0.07, 0.75, 0.36), fabric) for x in (-1, 1)],
            *four_legs(w * 0.9, 0.66, 0.28, 0.03, furniture(rng, any_colour(rng, "brown black beige"))),
        ]
        for x in (-1, 1):
            shapes.append(box((x * w / 4, -0.03, 0.46), (w / 2.1, 0.66, 0.1), cushion))
            shapes.append(box((x * w / 3, 0.2, 0.62), (0.36, 0.12, 0.34), cushion, axes=rotation(0, 0.35)))
    else:
        shapes = [
            box((0, 0, 0.24), (w, 0.8, 0.3), fabric),
            box((0, 0.36, 0.6), (w, 0.22, 0.62), fabric, axes=rotation(0, 0.12)),
        ]
        for x in (-1, 1):
            shapes.append(box((x * w / 2, -0.02, 0.36), (0.2, 0.84, 0.5), fabric))
            shapes.append(Capsule((x * w / 2, -0.38, 0.62), (x * w / 2, 0.34, 0.62), 0.12, fabric))
            shapes.append(Ellipsoid((x * w / 4, -0.06, 0.44), (w / 4.3, 0.38, 0.12), cushion))
            for y in (-0.33, 0.33):
                shapes.append(Capsule((x * w * 0.45, y, 0.03), (x * w * 0.45, y, 0.1), 0.03, solid(BLACK)))
        if kind == "corner":
            side = rng.choice([-1, 1])
            shapes.append(box((side * w * 0.32, -0.7, 0.24), (w * 0.4, 0.75, 0.3), fabric))
            shapes.append(Ellipsoid((side * w * 0.32, -0.62, 0.41), (w * 0.19, 0.46, 0.1), cushion))
    return Thing("sofa", shapes, f"{name} {rng.choice(['sofa', 'couch'])}", voc="sofa", top=0.5)

"""Aeroplane, boat and train, in several kinds each. Own frame: the front towards -x, seen from the side at yaw 0."""

from __future__ import annotations

import numpy as np

from sak.data.mini.dice import Dice
from sak.data.mini.primitives import Capsule, Ellipsoid, Frustum, Polyhedron, Primitive, box, rotation
from sak.data.mini.texture import BLACK, GLASS, GREY, PAINT, any_colour, panes, pick, solid, stripes, wood
from sak.data.mini.things.road import wheel
from sak.data.mini.things.thing import Thing


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


def wings(outline, height: float, texture, centre) -> list[Primitive]:
    """A wing of this outline (x, outwards) on the left side, and its mirror image."""
    flat = rotation(0, np.pi / 2)  # the outline's plane x-z becomes x-y
    mirrored = [(x, -z) for x, z in reversed(outline)]
    return [prism(side, height, texture, centre, axes=flat) for side in (outline, mirrored)]


def aeroplane(rng: Dice) -> Thing:
    name, colour = pick(rng, PAINT)
    paint, tail, dark = solid(colour * 0.95), solid(any_colour(rng)), solid(BLACK)
    kind = str(rng.choice(["airliner", "propeller plane", "jet"], p=[0.45, 0.3, 0.25]))
    if kind == "jet":  # a pointed nose, triangular wings, two fins
        shapes: list[Primitive] = [
            Capsule((-2.2, 0, 1.3), (3.6, 0, 1.3), 0.55, paint),
            Frustum((-2.2, 0, 1.3), (-5.0, 0, 1.15), 0.54, 0.03, tail),
            Ellipsoid((-1.7, 0, 1.8), (1.1, 0.36, 0.36), solid(GLASS)),
            Frustum((3.6, 0, 1.3), (4.4, 0, 1.3), 0.5, 0.4, dark),
            *wings([(-1.6, 0), (3.4, 0), (3.4, 3.2), (2.6, 3.2)], 0.14, paint, (0, 0, 1.15)),
            *[
                prism(
                    [(-0.6, 0), (1.0, 0), (1.5, 1.6), (0.9, 1.6)], 0.1, tail, (2.8, s * 0.6, 1.6), rotation(0, s * 0.2)
                )
                for s in (-1, 1)
            ],
            Capsule((-2.4, 0, 0.25), (-2.4, 0, 1.0), 0.09, dark),
        ]
        for s in (-1, 1):
            shapes += [Capsule((1.2, s * 0.9, 0.2), (1.2, s * 0.7, 1.1), 0.09, dark), *wheel(1.2, s * 0.9, 0.25, 0.16)]
        return Thing("aeroplane", shapes, f"{name} jet aeroplane", voc="aeroplane")
    if kind == "propeller plane":  # wings above the cabin, one propeller
        shapes = [
            Frustum((-2.3, 0, 1.5), (-0.6, 0, 1.5), 0.55, 0.72, paint),
            Frustum((-0.6, 0, 1.5), (3.6, 0, 1.75), 0.72, 0.16, paint),
            Ellipsoid((-0.6, 0, 1.95), (0.95, 0.6, 0.5), solid(GLASS)),
            *wings([(-0.7, 0), (0.7, 0), (0.6, 4.3), (-0.45, 4.3)], 0.16, tail, (-0.5, 0, 2.4)),
            *wings([(-0.4, 0), (0.5, 0), (0.5, 1.5), (0.0, 1.5)], 0.1, paint, (3.2, 0, 1.75)),
            prism([(-0.4, -0.1), (0.8, -0.1), (1.0, 1.2), (0.5, 1.2)], 0.12, tail, (3.0, 0, 1.9)),
            Ellipsoid((-2.4, 0, 1.5), (0.25, 0.2, 0.2), tail),
            box((-2.5, 0, 1.5), (0.06, 0.18, 2.2), dark),
            box((-2.5, 0, 1.5), (0.06, 2.2, 0.18), dark),
        ]
        for s in (-1, 1):
            shapes += [Capsule((-0.9, s * 0.95, 0.3), (-0.7, s * 0.4, 1.2), 0.08, dark), *wheel(-0.9, s, 0.32, 0.2)]
            shapes.append(Capsule((-0.5, s * 0.5, 1.4), (-0.5, s * 2.2, 2.35), 0.06, dark))
        return Thing("aeroplane", shapes, f"{name} propeller aeroplane", voc="aeroplane")
    body = panes(colour, GLASS, 0.5, (-0.05, 0.3), along=2, up=1, share=0.5)
    shapes = [
        Capsule((-4.2, 0, 2), (3.8, 0, 2), 0.75, body),
        Frustum((3.6, 0, 2.1), (6.0, 0, 2.45), 0.74, 0.15, paint),
        prism([(-0.2, -0.1), (1.4, -0.1), (2.2, 1.9), (1.2, 1.9)], 0.16, tail, (4.1, 0, 2.6)),
        Ellipsoid((-4.75, 0, 2.25), (0.3, 0.45, 0.25), solid(GLASS)),
        *wings([(-1.0, 0), (1.2, 0), (2.9, 5.2), (2.1, 5.2)], 0.14, paint, (-0.6, 0, 1.75)),
        *wings([(-0.3, 0), (0.8, 0), (1.4, 2.0), (0.9, 2.0)], 0.14, paint, (4.6, 0, 2.5)),
        Capsule((-3.6, 0, 0.2), (-3.6, 0, 1.4), 0.12, dark),
    ]
    for s in (-1, 1):
        shapes.append(Capsule((-0.9, s * 2.0, 1.35), (0.5, s * 2.0, 1.35), 0.33, tail))
        shapes.append(Capsule((0.3, s * 0.9, 0.25), (0.3, s * 0.9, 1.6), 0.1, dark))
        shapes += wheel(0.3, s * 0.9, 0.3, 0.2)
    return Thing("aeroplane", shapes, f"{name} aeroplane", voc="aeroplane")


def boat(rng: Dice) -> Thing:
    name, colour = pick(rng, PAINT)
    second, timber = any_colour(rng), wood(rng, (0.6, 0.42, 0.25))
    kind = str(rng.choice(["sailing boat", "motor boat", "fishing boat", "rowing boat"]))
    if kind == "rowing boat":
        outline = [(-1.25, -0.25), (1.2, -0.25), (1.75, 0.3), (-1.55, 0.3)]
        shapes: list[Primitive] = [
            prism(outline, 1.1, solid(colour), (0, 0, 0.2)),
            box((0.05, 0, 0.5), (3.0, 0.95, 0.04), timber),
            *[box((x, 0, 0.56), (0.25, 1.0, 0.06), solid(second)) for x in (-0.7, 0.1, 0.9)],
        ]
        for s in (-1, 1):
            shapes.append(Capsule((0.2, s * 0.3, 0.75), (-0.3, s * 1.9, 0.12), 0.035, timber))
            shapes.append(Ellipsoid((-0.33, s * 2.0, 0.08), (0.12, 0.3, 0.04), timber))
        return Thing("boat", shapes, f"{name} rowing boat", voc="boat", top=0.5)
    hull = stripes(colour, second, 2.0, axis=2, share=0.55)
    outline = [(-1.7, -0.45), (1.5, -0.45), (2.4, 0.45), (-1.9, 0.45)]
    shapes = [prism(outline, 1.3, hull, (0, 0, 0.35)), box((-0.05, 0, 0.83), (3.9, 1.1, 0.06), timber)]
    if kind == "sailing boat":
        sail = solid(any_colour(rng, f"white white white {PAINT}"))
        shapes += [
            Capsule((0.2, 0, 0.5), (0.2, 0, 4.6), 0.05, wood(rng, (0.5, 0.35, 0.2))),
            prism([(-1.9, -1.6), (0, -1.6), (0, 1.9)], 0.06, sail, (0.12, 0, 2.6)),
            prism([(0, -1.5), (1.6, -1.5), (0, 1.2)], 0.06, sail, (0.35, 0, 2.6)),
        ]
    else:
        cabin = panes(second, GLASS, 0.5, (-0.1, 0.3), share=0.75)
        shapes += [
            box((-0.5, 0, 1.3), (1.4, 0.95, 0.95), cabin, taper=(0.15, 0.05)),
            box((-0.5, 0, 1.82), (1.6, 1.05, 0.08), solid(colour)),
        ]
        if kind == "fishing boat":
            shapes.append(Capsule((0.9, 0, 0.8), (0.9, 0, 2.6), 0.05, solid(GREY)))
            shapes.append(Frustum((-0.8, 0, 1.8), (-0.8, 0, 2.4), 0.16, 0.14, solid(any_colour(rng))))
    return Thing("boat", shapes, f"{name} {kind}", voc="boat", top=0.86)


def train(rng: Dice) -> Thing:
    name, colour = pick(rng, PAINT)
    second, dark = any_colour(rng), solid(BLACK)
    kind = str(rng.choice(["train", "steam train", "express train"]))
    side = panes(colour, GLASS, 1.5, (0.2, 0.9), share=0.6)
    if kind == "train":
        shapes: list[Primitive] = [
            box((-5.75, 0, 1.75), (2.0, 2.4, 2.3), solid(second), taper=(0.85, 0.1)),
            box((-5.9, 0, 2.1), (1.35, 1.9, 0.8), solid(GLASS), taper=(0.9, 0.1)),
            box((-6.4, 0, 0.95), (1.1, 2.3, 0.7), solid(colour)),
        ]
    elif kind == "express train":  # a long round nose
        shapes = [
            Ellipsoid((-5.2, 0, 1.75), (2.6, 1.24, 1.3), solid(colour)),
            Ellipsoid((-6.2, 0, 2.4), (1.0, 0.8, 0.5), solid(GLASS)),
            box((-5.6, 0, 0.8), (2.4, 2.3, 0.6), solid(second)),
        ]
    else:  # a boiler, a chimney, a driver's cab, large wheels
        shapes = [
            Frustum((-7.4, 0, 2.0), (-3.4, 0, 2.0), 0.85, 0.85, solid(colour)),
            Frustum((-7.5, 0, 2.0), (-7.35, 0, 2.0), 0.6, 0.9, dark),
            Frustum((-6.8, 0, 2.7), (-6.8, 0, 3.7), 0.22, 0.34, dark),
            Ellipsoid((-5.2, 0, 2.85), (0.34, 0.34, 0.3), solid(second)),
            box((-2.4, 0, 2.35), (2.0, 2.3, 2.6), panes(colour, GLASS, 1.1, (0.1, 0.8), share=0.5)),
            box((-2.4, 0, 3.75), (2.4, 2.5, 0.2), dark),
            box((-4.8, 0, 1.05), (5.4, 2.0, 0.3), solid(second)),
            Ellipsoid((-7.5, 0, 3.0), 0.2, solid((0.98, 0.95, 0.8))),
        ]
        for x in (-6.6, -5.2, -3.8, -2.2):
            shapes.append(Frustum((x, -1.15, 0.7), (x, 1.15, 0.7), 0.68, 0.68, solid(any_colour(rng, "red black"))))
    for x in (2.0,) if kind == "steam train" else (-2.2, 4.1):
        shapes += [
            box((x, 0, 1.95), (6.0, 2.5, 2.5), side),
            box((x, 0, 1.3), (6.02, 2.53, 0.25), solid(second)),
            box((x, 0, 3.26), (5.8, 2.1, 0.16), solid(GREY)),
            box((x, 0, 0.55), (5.4, 2.0, 0.4), dark),
        ]
        for dx in (-2.1, -1.2, 1.2, 2.1):
            shapes.append(Frustum((x + dx, -1.15, 0.4), (x + dx, 1.15, 0.4), 0.4, 0.4, solid((0.2, 0.2, 0.2))))
    return Thing("train", shapes, f"{name} {kind}", voc="train")

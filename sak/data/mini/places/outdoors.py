"""The places out of doors: ground, sky and sun, trees and houses."""

from __future__ import annotations

import numpy as np

from sak.data.mini.dice import Dice
from sak.data.mini.places.layout import Layout
from sak.data.mini.primitives import Plane, Texture, rotation
from sak.data.mini.scene import Light, Scene
from sak.data.mini.texture import COLOURS, Colour, any_colour, bricks, noise, spots, surface, vary
from sak.data.mini.things import clutter, landscape
from sak.data.mini.things.thing import Thing

CAPTION_PLACES = {
    "road": ("on a road", "in a street"),
    "field": ("on the grass", "in a green field"),
    "square": ("in a paved square", "on a paved yard"),
    "beach": ("on the sand", "on a beach"),
    "water": ("on the water", "on a lake"),
    "runway": ("on a runway", "at an airport"),
    "track": ("on a railway track", "by the railway"),
}


# The ground of each place: PASCAL-Context's name, and usual colours.
GROUNDS: dict[str, tuple[str, tuple[Colour, ...]]] = {
    "field": ("grass", ((0.30, 0.48, 0.16), (0.45, 0.52, 0.20), (0.55, 0.50, 0.24), (0.22, 0.36, 0.14))),
    "beach": ("sand", ((0.82, 0.72, 0.52), (0.70, 0.58, 0.40), (0.88, 0.84, 0.74))),
    "water": ("water", ((0.16, 0.34, 0.46), (0.20, 0.44, 0.44), (0.24, 0.30, 0.36))),
    "road": ("road", ((0.36, 0.36, 0.38), (0.26, 0.26, 0.28), (0.50, 0.48, 0.46))),
    "runway": ("runway", ((0.36, 0.36, 0.38), (0.52, 0.52, 0.52), (0.28, 0.29, 0.31))),
    "track": ("track", ((0.48, 0.44, 0.40), (0.36, 0.34, 0.33), (0.56, 0.50, 0.42))),
    "square": ("floor", ()),
}


def ground_texture(rng: Dice, place: str) -> Texture:
    """The ground out of doors, of metres (x, y): mottled, patched, paved, or marked with lines or rails."""
    if place == "square":
        size = rng.paint.uniform(1.0, 2.2)
        if rng.paint.random() < 0.5:
            return surface(rng, "grey beige brown red white", size)[1]
        a = any_colour(rng, "grey beige brown red white")
        return bricks(a, a * 0.72, size * 0.5, size * 0.25)
    colours = GROUNDS[place][1]
    colour = vary(rng, colours[rng.paint.integers(len(colours))])
    scale = {"field": 0.6, "beach": 0.5, "water": 1.0}.get(place, 0.8) * rng.paint.uniform(0.6, 2.0)
    plain = noise(rng, colour, scale, rng.paint.uniform(0.08, 0.25))
    if place in ("field", "beach") and rng.paint.random() < 0.4:  # bare or dark patches
        plain = spots(rng, colour, vary(rng, np.asarray(colour) * rng.paint.uniform(0.7, 1.25)), 2.5 * scale)
    if place in ("field", "beach", "water"):
        return plain
    if place == "track":
        sleeper = vary(rng, (0.30, 0.22, 0.16))

        def track(p):
            x, y = p[0], p[1]
            on_sleeper = (np.abs(y) < 1.3) & (np.mod(x / 0.7, 1) < 0.35)
            on_rail = np.abs(np.abs(y) - 0.75) < 0.08
            ground = np.where(on_sleeper, np.asarray(sleeper)[:, None], plain(p))
            return np.where(on_rail, np.asarray([(0.7,), (0.7,), (0.72,)]), ground)

        return track
    paint, dashes = COLOURS["yellow" if place == "runway" else "white"], rng.paint.uniform(2.0, 5.0)

    def marked(p):
        line = (np.abs(np.abs(p[1]) - 2.6) < 0.09) & (np.mod(p[0] / dashes, 1) < 0.6)
        return np.where(line, np.asarray(paint)[:, None], plain(p))

    return marked


# What may stand behind the objects, and what may lie about among them.
BACKDROPS = {
    "road": (landscape.building, landscape.building, landscape.tree, landscape.post),
    "field": (landscape.tree, landscape.fence, landscape.tree, landscape.rock, landscape.mountain),
    "square": (landscape.garden_wall, landscape.garden_wall, landscape.building, landscape.bench, landscape.post),
    "beach": (landscape.rock, landscape.mountain, landscape.tree),
    "water": (landscape.mountain, landscape.rock),
    "runway": (landscape.building, landscape.mountain, landscape.tree),
    "track": (landscape.building, landscape.tree, landscape.fence, landscape.post),
}
ABOUT = (clutter.cardboard, clutter.bag, clutter.ball, landscape.barrel, landscape.bench, landscape.rock)


def outdoors(rng: Dice, scene: Scene, layout: Layout, place: str, distance: float) -> None:
    """Ground, sky and sun; trees, houses, walls, fences and hills behind the objects."""
    main = scene.things[0]
    name, texture = GROUNDS[place][0], ground_texture(rng, place)
    lengthwise = max(main.primitives, key=lambda p: float(np.prod(p.extent + 0.1))).axes[0]
    if abs(lengthwise[2]) > 0.5:  # a capsule's own axis is z: look along the thing by its bounds instead
        lengthwise = np.asarray([1.0, 0.0, 0.0])
    yaw = (
        float(np.arctan2(lengthwise[1], lengthwise[0]))
        if place in ("track", "road", "runway")
        else rng.uniform(0, np.pi)
    )
    low, high = main.bounds()
    middle = (low + high) / 2
    ground = Plane((middle[0], middle[1], 0), texture, rotation(2, yaw).T)
    back = max(distance * 1.4, max(box[3] for box in layout.footprints)) + 1.0
    for _ in range(rng.integers(2, 7)):
        make = BACKDROPS[place][rng.integers(len(BACKDROPS[place]))]
        if make is landscape.mountain:
            if not any(thing.name == "mountain" for thing in layout.things):
                layout.add(make(rng).move((rng.uniform(-15, 15), 70 + back, 0)), solid=False)
        elif make in (landscape.building, landscape.garden_wall):
            layout.try_to_place(make, (back + 4, back + 16), 0.9, 0.5)
        else:
            layout.try_to_place(make, (max(back, 3.0), back + 8), 0.9, 0.4)
    for _ in range(rng.integers(0, 3) if place != "water" else 0):
        make = ABOUT[rng.integers(len(ABOUT))]
        layout.try_to_place(make, (max(1.0, distance * 0.75), distance * 1.5), 0.9, 0.6)
    scene.things += [Thing(name, [ground], stuff=True)]

    weather = str(rng.paint.choice(["blue", "blue", "grey", "evening"]))
    zenith = {"blue": (0.28, 0.50, 0.85), "grey": (0.66, 0.69, 0.73), "evening": (0.45, 0.48, 0.70)}[weather]
    horizon = {"blue": (0.74, 0.85, 0.95), "grey": (0.80, 0.81, 0.82), "evening": (0.95, 0.72, 0.52)}[weather]
    scene.sky = (vary(rng, horizon, 0.03).astype(np.float32), vary(rng, zenith, 0.03).astype(np.float32))
    azimuth, height = rng.paint.uniform(0, 2 * np.pi), rng.paint.uniform(0.4, 1.15)
    sun = np.asarray([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
    if sun[1] > 0.3:  # mostly behind the camera, so that the objects' visible sides are lit
        sun[1] *= -1
    tint = np.asarray({"blue": (1.0, 0.97, 0.9), "grey": (1.0, 1.0, 1.0), "evening": (1.0, 0.84, 0.66)}[weather])
    strength = rng.paint.uniform(0.35, 0.5) if weather == "grey" else rng.paint.uniform(0.6, 0.8)
    scene.lights = [Light((middle + 60 * sun).astype(np.float32), tint * strength, True)]
    scene.ambient = np.asarray((0.36, 0.38, 0.42)) * rng.paint.uniform(0.9, 1.2) * (1.2 if weather == "grey" else 1.0)
    sky = {"blue": "under a blue sky", "grey": "under a grey sky", "evening": "in the evening"}[weather]
    where = str(rng.choice(CAPTION_PLACES[place]))
    if main.phrase.startswith("flying"):
        where = where.replace("on ", "above ").replace("in a", "above a").replace("at an", "above an")
    scene.place = f"{where} {sky}" if rng.random() < 0.7 else where

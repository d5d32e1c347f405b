"""What stands about the main object: people, objects that belong to the place, and what hides a part of it."""

from __future__ import annotations

import numpy as np

from sak.data.mini.dice import Dice
from sak.data.mini.places.layout import Layout
from sak.data.mini.things import clutter, landscape
from sak.data.mini.things.builders import BUILDERS, Builder
from sak.data.mini.things.people import person
from sak.data.mini.things.thing import Thing

PERSON_COMPANY = 0.7  # share of the scenes with another main object that persons join
OCCLUDED = 0.4  # share of the scenes with something before the main object's side, if a free place is found
COMPANY = {
    "room": ("chair", "chair", "sofa", "diningtable", "pottedplant", "tvmonitor", "cat", "dog", "bottle"),
    "road": ("car", "car", "bus", "bicycle", "motorbike", "horse", "dog"),
    "field": ("cow", "horse", "sheep", "dog", "bird", "bicycle", "car"),
    "square": ("bicycle", "motorbike", "pottedplant", "chair", "bird", "dog", "car", "cat", "diningtable"),
    "beach": ("dog", "bird", "horse", "boat", "bicycle"),
    "water": ("boat", "boat", "bird"),
    "runway": ("aeroplane", "car", "bus"),
    "track": ("bird", "bicycle", "train", "dog"),
}
BEFORE: dict[bool, tuple[Builder, ...]] = {  # by whether it is indoors: what may hide a part of the main object
    True: (
        *(clutter.cardboard, clutter.bag, clutter.basket, clutter.lamp, clutter.cabinet, clutter.ball),
        *(BUILDERS["chair"], BUILDERS["pottedplant"]),
    ),
    False: (
        *(landscape.fence, landscape.rock, landscape.barrel, landscape.post, landscape.bench, landscape.tree),
        *(clutter.bag, BUILDERS["pottedplant"]),
    ),
}


def small_thing(rng: Dice, bottles: float) -> Builder:
    """The builder of something to stand on a table: a bottle with probability `bottles`."""
    return BUILDERS["bottle"] if rng.random() < bottles else clutter.ON_TABLE[rng.integers(len(clutter.ON_TABLE))]


def add_people(rng: Dice, layout: Layout, main_name: str, place: str) -> None:
    """People at a distance that shows much of them; at sea on the boat. Who sits gets a chair."""
    if rng.random() < (0.45 if main_name == "person" else PERSON_COMPANY):
        for _ in range(1 + (rng.random() < 0.2)):
            depth = layout.focal * 1.7 / (2 * rng.uniform(0.42, 0.9))
            if place != "water":
                layout.try_to_place(person, (depth, depth * 1.1), 0.75, np.pi)
            elif main_name == "boat":
                layout.put_on(lambda g: person(g, "waving" if g.random() < 0.5 else "standing"), layout.things[0], 0.2)
    for thing in [thing for thing in layout.things if thing.phrase.startswith("sitting person")]:
        hips = [primitive for primitive in thing.primitives if primitive.part == "torso"][1]
        forward, (x, y, z) = -hips.axes[1], hips.centre
        seat = BUILDERS["chair"](rng)
        scale = max(float(z - hips.extent[2] * hips.scale) / 0.46, 0.6)
        layout.add(seat.move((x, y, 0), yaw=float(np.arctan2(forward[0], -forward[1])), scale=scale))


def add_company(rng: Dice, layout: Layout, place: str, support: Thing | None) -> None:
    """One to three more objects that belong to the place, and things on the tables among them."""
    distance = layout.main_view[2]
    for name in rng.permutation(COMPANY[place])[: rng.integers(1, 4)]:
        if name != "bottle":  # bottles are company too, but only on tables
            layout.try_to_place(BUILDERS[name], (max(distance * 0.85, 0.8), distance * 1.7 + 1.2), 0.85, 1.1)
    for table in [thing for thing in layout.things if thing.name == "table" and thing is not support]:
        for _ in range(rng.integers(1, 4)):
            layout.put_on(small_thing(rng, bottles=0.5), table)


def add_occluder(rng: Dice, layout: Layout, indoor: bool) -> None:
    """In some scenes, something before one side of the main object."""
    if rng.random() > OCCLUDED:
        return
    low, high = layout.things[0].bounds()
    distance = layout.main_view[2]
    thing = BEFORE[indoor][rng.integers(len(BEFORE[indoor]))](rng).move(yaw=rng.uniform(-0.4, 0.4))
    size = thing.bounds()[1] - thing.bounds()[0]
    for _ in range(10):
        y = rng.uniform(0.45, 0.8) * float(low[1])
        # as large on the screen as a quarter to a half of its width, but of a size that it may well have
        scale = np.clip(rng.uniform(0.5, 1.0) * y / layout.focal / max(size[0], size[2]), 0.6, 1.5)
        side = low[0] if rng.random() < 0.5 else high[0]
        x = side * y / distance + rng.uniform(-0.4, 0.2) * np.sign(side) * size[0] * scale
        thing.move(scale=scale).move((x, y, 0))
        if layout.is_free(thing):
            layout.add(thing)
            return
        thing.move((-x, -y, 0)).move(scale=1 / scale)

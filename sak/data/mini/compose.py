"""Random scenes: a main object of a chosen class, its company, a camera that looks at it, and a place around them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from sak.data.mini.classes import VOC
from sak.data.mini.layout import Layout
from sak.data.mini.places import outdoors, room
from sak.data.mini.scene import Camera, Scene, look_at
from sak.data.mini.things import clutter
from sak.data.mini.things.objects import BUILDERS
from sak.data.mini.things.people import person
from sak.data.mini.things.thing import Thing

PERSON_COMPANY = 0.72  # share of the scenes with another main object that persons join
# Weight among main objects; 1 for all others. Indoor things are favoured because rooms have normals everywhere.
MAIN_WEIGHT = {
    **{"person": 4.5, "bottle": 3.2, "cat": 2.2, "chair": 3.0, "diningtable": 2.2, "dog": 1.6, "pottedplant": 2.2},
    **{"sofa": 2.6, "tvmonitor": 2.2, "aeroplane": 1.7, "train": 1.5, "bird": 1.4, "boat": 1.3, "bus": 1.2},
}
LONG = ("aeroplane", "bus", "train")  # these may reach beyond the image: fitted inside they would be thin

# Where each class is at home. "room" is indoors.
PLACES = {
    **{
        "aeroplane": ("runway", "runway", "field"),
        "bicycle": ("road", "square", "square"),
        "bird": ("field", "square", "beach"),
    },
    **{
        "boat": ("water",),
        "bottle": ("room",),
        "bus": ("road",),
        "car": ("road", "square"),
        "cat": ("room", "room", "room", "square"),
    },
    **{
        "chair": ("room",),
        "cow": ("field",),
        "diningtable": ("room",),
        "dog": ("room", "room", "room", "square", "field", "beach"),
    },
    **{
        "horse": ("field", "field", "beach"),
        "motorbike": ("road", "square"),
        "pottedplant": ("room", "room", "square"),
    },
    **{
        "person": ("room", "room", "room", "room", "square", "road", "field", "beach"),
        "sheep": ("field",),
        "sofa": ("room",),
    },
    **{"train": ("track",), "tvmonitor": ("room",)},
}
COMPANY = {
    "room": ("chair", "chair", "sofa", "diningtable", "pottedplant", "tvmonitor", "cat", "dog", "bottle"),
    "road": ("car", "car", "bus", "bicycle", "motorbike"),
    "field": ("cow", "horse", "sheep", "dog", "bird", "bicycle"),
    "square": ("bicycle", "motorbike", "pottedplant", "chair", "bird", "dog", "car"),
    "beach": ("dog", "bird", "horse", "boat"),
    "water": ("boat", "boat", "bird"),
    "runway": ("aeroplane", "car"),
    "track": ("bird", "bicycle", "train"),
}


def random_scene(rng: np.random.Generator, size: int) -> Scene:
    """One scene of `size` x `size` pixels; all its randomness comes from `rng`."""
    names = VOC[1:]
    weights = np.asarray([MAIN_WEIGHT.get(name, 1.0) for name in names])
    main_name = str(rng.choice(names, p=weights / weights.sum()))
    place = str(rng.choice(PLACES[main_name]))
    layout = Layout(rng, focal=rng.uniform(1.15, 1.6))
    camera, support = put_main(rng, layout, main_name, indoor=place == "room")
    add_people(rng, layout, main_name, place)
    add_company(rng, layout, place, support)

    scene = Scene(layout.things, camera, [], np.zeros(3), size)
    distance = layout.main_view[2]
    if place == "room":
        room(rng, scene, layout, distance)
    else:
        outdoors(rng, scene, layout, place, distance)
    scene.exposure = float(rng.uniform(0.82, 1.2))
    scene.sensor_noise = float(rng.uniform(0.004, 0.02))
    scene.seed = tuple(int(x) for x in rng.integers(0, 2**31, 2))
    return scene


def build(rng: np.random.Generator, name: str) -> Thing:
    return person(rng) if name == "person" else BUILDERS[name](rng)


def small_thing(rng: np.random.Generator, bottles: float) -> Callable[[np.random.Generator], Thing]:
    """The builder of something to stand on a table: a bottle with probability `bottles`."""
    return BUILDERS["bottle"] if rng.random() < bottles else clutter.ON_TABLE[rng.integers(len(clutter.ON_TABLE))]


def put_main(rng: np.random.Generator, layout: Layout, name: str, indoor: bool) -> tuple[Camera, Thing | None]:
    """Place the main object, what it stands on if anything, and a camera at the distance that makes it large."""
    main = build(rng, name).move(yaw=random_yaw(rng, name), scale=rng.uniform(0.92, 1.1))
    support = None
    if name in ("tvmonitor", "bottle") or (name == "pottedplant" and indoor and rng.random() < 0.4):
        on_cabinet = rng.random() < (0.4 if name == "bottle" else 0.7)
        support = clutter.cabinet(rng) if on_cabinet else build(rng, "diningtable")
    low, high = main.bounds()
    extent = high - low
    share = rng.uniform(1.0, 1.7) if name in LONG else rng.uniform(0.8, 1.3)  # of the image's width or height
    distance = max(float(max(extent[0], extent[2]) * layout.focal / (2 * share) + extent[1] / 2), 0.45)
    u = rng.uniform(-0.3, 0.3)
    base = support.top if support else 0.0
    if name in ("bird", "aeroplane") and (main.phrase.startswith("flying") or rng.random() < 0.25):
        base = rng.uniform(0.5, 1.5) * extent[2]
        if name == "aeroplane":
            main.move(roll=rng.uniform(-0.25, 0.25))
            main.phrase = "flying " + main.phrase
    x = u * distance / layout.focal
    main.move((x, distance, base))
    layout.add(main)
    layout.main_view = (u - 0.35, u + 0.35, distance)
    if support:
        low, high = main.bounds()
        middle, half = (low + high) / 2, support.bounds()[1]
        aside = rng.uniform(-0.5, 0.5) * half[0] * (0.5 if name == "tvmonitor" else 0.9)
        support.move((middle[0] + aside, middle[1] - half[1] * rng.uniform(-0.5, 0.1), 0))
        layout.add(support)
        for _ in range(rng.integers(0, 4) if name == "bottle" else rng.integers(0, 2)):
            layout.put_on(small_thing(rng, bottles=0.4), support)

    elevation = rng.uniform(0.08, 0.48) if indoor else rng.uniform(0.06, 0.42)
    height = base + 0.5 * extent[2] + (distance - 0.3 * extent[1]) * np.tan(elevation)
    position = np.asarray([0, 0, min(max(height, 0.25), 2.2 if indoor else 9.0)])
    aim = np.asarray([x * rng.uniform(0, 0.6), distance, base + extent[2] * rng.uniform(0.35, 0.65)])
    axes = look_at(position, aim, roll=rng.uniform(-0.05, 0.05))
    return Camera(position.astype(np.float32), axes, layout.focal), support


def add_people(rng: np.random.Generator, layout: Layout, main_name: str, place: str) -> None:
    """People at a distance that shows much of them; at sea on the boat. Who sits gets a chair."""
    if rng.random() < (0.45 if main_name == "person" else PERSON_COMPANY):
        for _ in range(1 + (rng.random() < 0.2)):
            depth = layout.focal * 1.7 / (2 * rng.uniform(0.42, 0.9))
            if place != "water":
                layout.try_to_place(person, (depth, depth * 1.1), 0.75, np.pi)
            elif main_name == "boat":
                layout.put_on(lambda g: person(g, "waving" if g.random() < 0.5 else "standing"), layout.things[0], 0.2)
    for thing in [thing for thing in layout.things if thing.phrase.startswith("sitting")]:
        hips = [primitive for primitive in thing.primitives if primitive.part == "torso"][1]
        forward, (x, y, z) = -hips.axes[1], hips.centre
        seat = build(rng, "chair")
        scale = max(float(z - hips.extent[2] * hips.scale) / 0.46, 0.6)
        layout.add(seat.move((x, y, 0), yaw=float(np.arctan2(forward[0], -forward[1])), scale=scale))


def add_company(rng: np.random.Generator, layout: Layout, place: str, support: Thing | None) -> None:
    """One to three more objects that belong to the place, and things on the tables among them."""
    distance = layout.main_view[2]
    for name in rng.permutation(COMPANY[place])[: rng.integers(1, 4)]:
        if name != "bottle":  # bottles are company too, but only on tables
            make = functools.partial(build, name=name)
            layout.try_to_place(make, (max(distance * 0.85, 0.8), distance * 1.7 + 1.2), 0.85, 1.1)
    for table in [thing for thing in layout.things if thing.name == "table" and thing is not support]:
        for _ in range(rng.integers(1, 4)):
            layout.put_on(small_thing(rng, bottles=0.5), table)


def random_yaw(rng: np.random.Generator, name: str) -> float:
    """Long things mostly show their sides, from either direction; chairs, screens and sofas mostly their fronts."""
    if name in ("bottle", "pottedplant", "diningtable"):
        return rng.uniform(-np.pi, np.pi)
    if name in ("sofa", "tvmonitor", "chair"):
        return rng.uniform(-0.9, 0.9)
    if name == "person":
        return rng.uniform(-0.9, 0.9) if rng.random() < 0.65 else rng.uniform(-np.pi, np.pi)
    return rng.uniform(-0.9, 0.9) + (np.pi if rng.random() < 0.5 else 0.0)

"""Random scenes: a main object of a chosen class, its company, a camera that looks at it, and a place around them."""

from __future__ import annotations

import numpy as np

from sak.data.mini.classes import VOC
from sak.data.mini.dice import Dice
from sak.data.mini.places.company import add_company, add_occluder, add_people, small_thing
from sak.data.mini.places.layout import Layout
from sak.data.mini.places.outdoors import outdoors
from sak.data.mini.places.room import room
from sak.data.mini.primitives import rotation
from sak.data.mini.scene import Camera, Scene, look_at
from sak.data.mini.things.builders import BUILDERS
from sak.data.mini.things.clutter import cabinet
from sak.data.mini.things.thing import Thing

# Weight among main objects; 1 for all others. Above 1 is who is no company of others, and people, for their parts.
MAIN_WEIGHT = {
    **{"person": 2.5, "aeroplane": 1.5, "train": 1.5, "bus": 1.3, "boat": 1.2, "bottle": 1.3, "tvmonitor": 1.2},
    **{"cat": 1.2, "sofa": 1.2, "diningtable": 1.1, "bicycle": 1.1, "bird": 1.3, "horse": 1.1},
}
# Length of the main object as a share of the image's width or height, where it is not 0.75 to 1.3: long things may
# reach beyond the image, and thin ones fill its height, for else they would cover little of it.
SHARE = {"aeroplane": (1.0, 1.7), "bus": (1.0, 1.7), "train": (1.0, 1.7), "bottle": (1.0, 1.4)}
ORBIT = np.deg2rad(10)  # how far the camera may be turned about the main object for another view

# Where each class is at home. "room" is indoors.
PLACES = {
    **{"aeroplane": ("runway", "runway", "field"), "bicycle": ("road", "square", "field", "beach")},
    **{"bird": ("field", "square", "beach", "road"), "boat": ("water", "water", "water", "beach")},
    **{"bottle": ("room",), "bus": ("road", "road", "square"), "car": ("road", "square", "field", "beach")},
    **{"cat": ("room", "room", "square", "field"), "chair": ("room", "room", "room", "square")},
    **{"cow": ("field", "field", "road", "beach"), "diningtable": ("room", "room", "square")},
    **{"dog": ("room", "room", "square", "field", "beach", "road")},
    **{"horse": ("field", "field", "beach", "square", "road"), "motorbike": ("road", "square", "field")},
    **{"person": ("room", "room", "room", "square", "road", "field", "beach")},
    **{"pottedplant": ("room", "room", "square"), "sheep": ("field", "field", "road", "beach"), "sofa": ("room",)},
    **{"train": ("track",), "tvmonitor": ("room",)},
}


def random_scene(rng: Dice, size: int, turn: float = 0.0) -> Scene:
    """One scene of `size` x `size` pixels; all its randomness comes from `rng`.

    `turn` (radians, at most `ORBIT` to either side) moves the camera around the main object, and changes nothing else.
    """
    names = VOC[1:]
    weights = np.asarray([MAIN_WEIGHT.get(name, 1.0) for name in names])
    main_name = str(rng.choice(names, p=weights / weights.sum()))
    place = str(rng.choice(PLACES[main_name]))
    indoor = place == "room"
    layout = Layout(rng, focal=rng.uniform(1.15, 1.6))
    camera, support = put_main(rng, layout, main_name, indoor, turn)
    add_people(rng, layout, main_name, place)
    add_company(rng, layout, place, support)
    if support is None and place != "water":
        add_occluder(rng, layout, indoor)

    scene = Scene(layout.things, camera, [], np.zeros(3), size)
    distance = layout.main_view[2]
    if indoor:
        room(rng, scene, layout, distance)
    else:
        outdoors(rng, scene, layout, place, distance)
    scene.exposure = float(rng.paint.uniform(0.82, 1.2))
    scene.sensor_noise = float(rng.paint.uniform(0.004, 0.02))
    scene.seed = tuple(int(x) for x in rng.paint.integers(0, 2**31, 2))
    return scene


def put_main(rng: Dice, layout: Layout, name: str, indoor: bool, turn: float) -> tuple[Camera, Thing | None]:
    """Place the main object, what it stands on if anything, and a camera at the distance that makes it large."""
    main = BUILDERS[name](rng).move(yaw=random_yaw(rng, name), scale=rng.uniform(0.92, 1.1))
    support = None
    if name in ("tvmonitor", "bottle") or (name in ("pottedplant", "cat") and indoor and rng.random() < 0.3):
        on_cabinet = rng.random() < (0.4 if name == "bottle" else 0.7)
        support = cabinet(rng) if on_cabinet else BUILDERS["diningtable"](rng)
    low, high = main.bounds()
    extent = high - low
    share = rng.uniform(*SHARE.get(name, (0.75, 1.3)))
    distance = max(float(max(extent[0], extent[2]) * layout.focal / (2 * share) + extent[1] / 2), 0.45)
    u = rng.uniform(-0.35, 0.35)
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
        for _ in range(rng.integers(0, 4) if name == "bottle" else rng.integers(0, 3)):
            layout.put_on(small_thing(rng, bottles=0.4), support)

    elevation = rng.uniform(0.08, 0.55) if indoor else rng.uniform(0.06, 0.5)
    height = base + 0.5 * extent[2] + (distance - 0.3 * extent[1]) * np.tan(elevation)
    middle = np.asarray([x, distance, 0])
    arc = [middle + rotation(2, angle) @ -middle for angle in (-ORBIT, 0, ORBIT)]
    layout.cameras = np.stack(arc, axis=1)[:2]
    position = middle + rotation(2, turn) @ -middle
    position[2] = min(max(height, 0.25), 2.2 if indoor else 9.0)
    aim = np.asarray([x * rng.uniform(0, 0.6), distance, base + extent[2] * rng.uniform(0.35, 0.65)])
    axes = look_at(position, aim, roll=rng.uniform(-0.06, 0.06))
    return Camera(position.astype(np.float32), axes, layout.focal), support


def random_yaw(rng: Dice, name: str) -> float:
    """Long things mostly show their sides, from either direction; chairs, screens and sofas mostly their fronts."""
    if name in ("bottle", "pottedplant", "diningtable"):
        return rng.uniform(-np.pi, np.pi)
    if name in ("sofa", "tvmonitor", "chair"):
        return rng.uniform(-1.0, 1.0)
    if name == "person":
        return rng.uniform(-0.9, 0.9) if rng.random() < 0.65 else rng.uniform(-np.pi, np.pi)
    return rng.uniform(-1.0, 1.0) + (np.pi if rng.random() < 0.5 else 0.0)

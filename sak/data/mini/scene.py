"""Random scenes: a main object of a chosen class, its company, the place around them, camera and lights.

World frame: the camera stands above the origin and looks along +y; z is up and the ground is z = 0; metres.
Camera frame: x right, y up, z towards the viewer. Image coordinates (u, v) lie in [-1, 1], v upwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sak.data.mini import clutter
from sak.data.mini.classes import VOC
from sak.data.mini.objects import BUILDERS
from sak.data.mini.people import person
from sak.data.mini.primitives import Plane, rotation
from sak.data.mini.texture import COLOURS, bricks, checker, noise, solid, stripes, vary, wood
from sak.data.mini.thing import Thing

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
CAPTION_PLACES = {
    "road": ("on a road", "in a street"),
    "field": ("on the grass", "in a green field"),
    "square": ("in a paved square", "on a paved yard"),
    "beach": ("on the sand", "on a beach"),
    "water": ("on the water", "on a lake"),
    "runway": ("on a runway", "at an airport"),
    "track": ("on a railway track", "by the railway"),
}


@dataclass
class Camera:
    position: np.ndarray  # (3,)
    axes: np.ndarray  # (3, 3), rows: right, up, towards the viewer, in the world frame
    focal: float  # in half image widths


@dataclass
class Light:
    position: np.ndarray  # (3,), world
    colour: np.ndarray  # (3,), irradiance on a surface that faces it
    shadow: bool


@dataclass
class Scene:
    things: list[Thing]  # the main object first
    camera: Camera
    lights: list[Light]
    ambient: np.ndarray
    size: int  # pixels, height = width
    sky: tuple[np.ndarray, np.ndarray] = (np.full(3, 0.8), np.full(3, 0.5))  # horizon, zenith
    place: str = ""
    exposure: float = 1.0
    sensor_noise: float = 0.0
    seed: tuple[int, ...] = field(default=(0,))  # of the sensor noise and the clouds


def look_at(position: np.ndarray, target: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """Camera axes for a view from `position` towards `target`."""
    back = position - target
    back = back / np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    return (rotation(2, roll) @ np.stack([right, np.cross(back, right), back])).astype(np.float32)


def build(rng: np.random.Generator, name: str) -> Thing:
    return person(rng) if name == "person" else BUILDERS[name](rng)


class Layout:
    """Keeps the ground plan: puts things where their footprints do not overlap."""

    def __init__(self, rng: np.random.Generator, focal: float):
        self.rng, self.focal = rng, focal
        self.things: list[Thing] = []
        self.footprints: list[np.ndarray] = []  # (x0, y0, x1, y1)

    def add(self, thing: Thing, solid: bool = True) -> None:
        low, high = thing.bounds()
        self.things.append(thing)
        if solid:
            self.footprints.append(np.asarray([*low[:2], *high[:2]]))

    def is_free(self, thing: Thing) -> bool:
        low, high = thing.bounds()
        return low[1] > 0.3 and all(
            high[0] < x0 or low[0] > x1 or high[1] < y0 or low[1] > y1 for x0, y0, x1, y1 in self.footprints
        )

    def try_to_place(
        self, make, depth: tuple[float, float], spread: float = 0.85, yaw: float = 0.0, keep_clear=None
    ) -> bool:
        """Put a thing at a random depth (metres) and image column (|u| < spread); False where there is no room.

        `keep_clear` (u0, u1, y): nothing nearer than y may cover the columns around the main object.
        """
        thing = make(self.rng)
        for _ in range(20):
            y = self.rng.uniform(depth[0], max(depth[1], depth[0] + 0.3))
            u = self.rng.uniform(-spread, spread)
            if keep_clear and y < keep_clear[2] and keep_clear[0] < u < keep_clear[1]:
                continue
            turn = self.rng.uniform(-yaw, yaw)
            thing.move(yaw=turn).move((u * y / self.focal, y, 0))
            if self.is_free(thing):
                self.add(thing)
                return True
            thing.move((-u * y / self.focal, -y, 0)).move(yaw=-turn)
        return False

    def put_on(self, make, support: Thing, share: float = 0.35) -> Thing:
        """Stand a new thing on the top of another."""
        low, high = support.bounds()
        middle, reach = (low + high) / 2, (high - low) * share
        thing = make(self.rng).move(yaw=self.rng.uniform(-0.6, 0.6))
        x, y = middle[:2] + reach[:2] * self.rng.uniform(-1, 1, 2)
        thing.move((x, y, support.top))
        self.add(thing, solid=False)
        return thing


def random_scene(rng: np.random.Generator, size: int) -> Scene:
    """One scene; all its randomness comes from `rng`."""
    names = VOC[1:]
    weights = np.asarray([MAIN_WEIGHT.get(name, 1.0) for name in names])
    main_name = str(rng.choice(names, p=weights / weights.sum()))
    place = str(rng.choice(PLACES[main_name]))
    indoor = place == "room"
    layout = Layout(rng, focal=rng.uniform(1.15, 1.6))

    main = build(rng, main_name).move(yaw=random_yaw(rng, main_name), scale=rng.uniform(0.92, 1.1))
    support = None
    if main_name == "tvmonitor" or (
        main_name in ("bottle", "pottedplant") and indoor and (main_name == "bottle" or rng.random() < 0.4)
    ):
        support = (
            clutter.cabinet(rng)
            if rng.random() < (0.4 if main_name == "bottle" else 0.7)
            else build(rng, "diningtable")
        )
    low, high = main.bounds()
    extent = high - low
    share = rng.uniform(1.0, 1.7) if main_name in LONG else rng.uniform(0.8, 1.3)
    distance = float(max(extent[0], extent[2]) * layout.focal / (2 * share) + extent[1] / 2)
    distance = max(distance, 0.45)
    u = rng.uniform(-0.3, 0.3)
    lift = 0.0
    if main_name in ("bird", "aeroplane") and (main.phrase.startswith("flying") or rng.random() < 0.25):
        lift = rng.uniform(0.5, 1.5) * extent[2]
        if main_name == "aeroplane":
            main = main.move(roll=rng.uniform(-0.25, 0.25))
            main.phrase = "flying " + main.phrase
    base = support.top if support else lift
    main.move((u * distance / layout.focal, distance, base))
    layout.add(main)
    if support:
        low, high = main.bounds()
        middle = (low + high) / 2
        half = support.bounds()[1]
        off = rng.uniform(-0.5, 0.5) * half[:2] * (0.5 if main_name == "tvmonitor" else 0.9)
        off[1] = half[1] * rng.uniform(-0.5, 0.1)
        support.move((middle[0] + off[0], middle[1] - off[1], 0))
        layout.add(support)
        for _ in range(rng.integers(0, 4) if main_name == "bottle" else rng.integers(0, 2)):
            layout.put_on(BUILDERS["bottle"] if rng.random() < 0.4 else clutter.ON_TABLE[rng.integers(4)], support)

    elevation = rng.uniform(0.06, 0.42) if not indoor else rng.uniform(0.08, 0.48)
    camera_height = base + 0.5 * extent[2] + (distance - 0.3 * extent[1]) * np.tan(elevation)
    camera_height = min(max(camera_height, 0.25), 2.2 if indoor else 9.0)
    position = np.asarray([0, 0, camera_height])
    aim = np.asarray(
        [u * distance / layout.focal * rng.uniform(0, 0.6), distance, base + extent[2] * rng.uniform(0.35, 0.65)]
    )
    camera = Camera(position.astype(np.float32), look_at(position, aim, rng.uniform(-0.05, 0.05)), layout.focal)

    clear = (u - 0.35, u + 0.35, distance)
    if (main_name == "person" and rng.random() < 0.45) or (main_name != "person" and rng.random() < PERSON_COMPANY):
        for _ in range(1 + (rng.random() < 0.2)):
            depth = layout.focal * 1.7 / (2 * rng.uniform(0.42, 0.9))
            if place == "water":
                if main_name == "boat":
                    layout.put_on(lambda g: person(g, "waving" if g.random() < 0.5 else "standing"), main, 0.2)
            else:
                layout.try_to_place(person, (depth, depth * 1.1), 0.75, np.pi, clear)
    sit(rng, layout)
    for name in rng.permutation(COMPANY[place])[: rng.integers(1, 4)]:
        if name == "bottle":
            continue
        near, far = max(distance * 0.85, 0.8), distance * 1.7 + 1.2
        layout.try_to_place(lambda g, name=name: build(g, name), (near, far), 0.85, 1.1, clear)
    for thing in [t for t in layout.things if t.name == "table" and t is not support]:
        for _ in range(rng.integers(1, 4)):
            layout.put_on(BUILDERS["bottle"] if rng.random() < 0.5 else clutter.ON_TABLE[rng.integers(4)], thing)

    scene = Scene(layout.things, camera, [], np.zeros(3), size)
    if indoor:
        room(rng, scene, layout, distance, clear)
    else:
        outdoors(rng, scene, layout, place, distance, clear)
    scene.exposure = float(rng.uniform(0.82, 1.2))
    scene.sensor_noise = float(rng.uniform(0.004, 0.02))
    scene.seed = tuple(int(x) for x in rng.integers(0, 2**31, 2))
    return scene


def random_yaw(rng: np.random.Generator, name: str) -> float:
    """Long things mostly show their sides, from either direction; chairs, screens and sofas mostly their fronts."""
    if name in ("bottle", "pottedplant", "diningtable"):
        return rng.uniform(-np.pi, np.pi)
    if name in ("sofa", "tvmonitor", "chair"):
        return rng.uniform(-0.9, 0.9)
    if name == "person":
        return rng.uniform(-0.9, 0.9) if rng.random() < 0.65 else rng.uniform(-np.pi, np.pi)
    return rng.uniform(-0.9, 0.9) + (np.pi if rng.random() < 0.5 else 0.0)


def sit(rng: np.random.Generator, layout: Layout) -> None:
    """Give every sitting person a chair, or a box where the scene is out of doors."""
    for thing in [t for t in layout.things if t.phrase.startswith("sitting")]:
        torso = [p for p in thing.primitives if p.part == "torso"][1]
        forward = -torso.axes[1]
        x, y, z = torso.centre
        seat = build(rng, "chair")
        yaw = float(np.arctan2(forward[0], -forward[1]))
        seat.move(yaw=yaw, scale=max(float(z - torso.extent[2] * torso.scale) / 0.46, 0.6)).move((x, y, 0))
        layout.add(seat)


def random_texture(rng: np.random.Generator, palette: tuple[str, ...], scale: float):
    """A surface for walls and floors."""
    name = str(rng.choice(palette))
    a = vary(rng, COLOURS[name])
    b = np.clip(a * rng.uniform(0.65, 1.3), 0, 1)
    kind = rng.integers(6)
    if kind == 0:
        return name, checker(a, b, scale * 0.5)
    if kind == 1:
        return name, stripes(a, b, scale * rng.uniform(0.2, 0.6))
    if kind == 2:
        return name, bricks(a, b, scale * 0.6, scale * 0.25)
    if kind == 3:
        return name, noise(rng, a, scale, 0.12)
    return name, solid(a)


def room(rng: np.random.Generator, scene: Scene, layout: Layout, distance: float, clear) -> None:
    """Floor, ceiling and three walls around everything, wall furniture, clutter on the floor, lamps."""
    for _ in range(rng.integers(1, 4)):
        make = clutter.ON_FLOOR[rng.integers(len(clutter.ON_FLOOR))]
        layout.try_to_place(make, (max(0.8, distance * 0.8), distance * 1.6 + 1.0), 0.9, 0.6, clear)
    if rng.random() < 0.35:
        layout.add(clutter.rug(rng).move((rng.uniform(-0.6, 0.6), distance, 0), rng.uniform(-0.5, 0.5)), solid=False)

    turn = rotation(2, rng.uniform(-0.6, 0.6) if rng.random() < 0.6 else rng.uniform(-0.15, 0.15))
    corners = np.concatenate([p.corners()[:2] for t in layout.things for p in t.primitives], axis=1)
    corners = np.concatenate([corners, np.asarray([[-0.4, 0.4, 0], [0, 0, -0.4]])], axis=1)
    plan = turn[:2, :2].T @ corners
    left, right = plan[0].min() - rng.uniform(0.1, 1.3), plan[0].max() + rng.uniform(0.1, 1.3)
    back, high = plan[1].max() + rng.uniform(0.05, 0.8), rng.uniform(2.4, 3.0)
    palette = ("white", "beige", "grey", "yellow", "green", "blue", "pink", "turquoise", "orange")
    name, paper = random_texture(rng, palette, 1.0)
    second = random_texture(rng, palette, 1.0)[1] if rng.random() < 0.3 else paper
    boards = wood(rng, vary(rng, COLOURS[str(rng.choice(["brown", "beige"]))]), axis=int(rng.integers(2)))
    ground = (
        boards
        if rng.random() < 0.45
        else random_texture(rng, ("grey", "beige", "brown", "white", "red", "blue"), 0.8)[1]
    )

    def wall(centre, axes, texture):
        return Plane(turn @ np.asarray(centre, np.float32), texture, (np.asarray(axes) @ turn.T))

    walls = [
        wall((0, back, 0), [(1, 0, 0), (0, 0, 1), (0, -1, 0)], paper),
        wall((left, 0, 0), [(0, 1, 0), (0, 0, 1), (1, 0, 0)], second),
        wall((right, 0, 0), [(0, 1, 0), (0, 0, 1), (-1, 0, 0)], second),
    ]
    floor = Plane((0, 0, 0), ground, turn.T)
    ceiling = Plane((0, 0, high), solid(vary(rng, (0.9, 0.9, 0.88), 0.03)))
    slots = np.linspace(left + 0.5, right - 0.5, max(2, int((right - left) / 1.3)))
    for x in slots:
        if rng.random() < 0.5:
            thing = clutter.ON_WALL[rng.integers(len(clutter.ON_WALL))](rng)
            depth = 0.2 if thing.name == "shelves" else 0.08 if thing.name == "curtain" else 0.03
            angle = float(np.arctan2(turn[1, 0], turn[0, 0]))
            layout.add(thing.move(turn @ np.asarray([x, back - depth, 0]), angle), solid=False)
    scene.things += [
        Thing("wall", walls, stuff=True),
        Thing("floor", [floor], stuff=True),
        Thing("ceiling", [ceiling], stuff=True),
    ]
    scene.place = f"in a room with {name} walls" if rng.random() < 0.6 else str(rng.choice(["in a room", "indoors"]))

    warm = np.asarray([1.0, rng.uniform(0.9, 1.0), rng.uniform(0.78, 1.0)])
    at = turn @ np.asarray([rng.uniform(left * 0.5, right * 0.5), rng.uniform(0.2, 0.75) * back, high - 0.1])
    power, fill = rng.uniform(0.55, 0.85), rng.uniform(0.08, 0.25)
    scene.lights = [Light(at.astype(np.float32), warm * power, True)]
    scene.lights.append(Light(np.asarray([rng.uniform(-1, 1), -0.3, 1.8], np.float32), np.full(3, fill), False))
    scene.ambient = warm * rng.uniform(0.28, 0.42)


def ground_texture(rng: np.random.Generator, place: str, main: Thing):
    """(context name, texture) of the ground out of doors."""
    if place == "field":
        return "grass", noise(rng, vary(rng, (0.30, 0.48, 0.16)), 0.6, 0.18)
    if place == "beach":
        return "sand", noise(rng, vary(rng, (0.82, 0.72, 0.52)), 0.5, 0.08)
    if place == "water":
        return "water", noise(rng, vary(rng, (0.16, 0.34, 0.46)), 1.0, 0.2)
    if place == "square":
        a = vary(rng, COLOURS[str(rng.choice(["grey", "beige", "brown"]))])
        tile = rng.uniform(0.4, 0.9)
        return "floor", checker(a, a * 0.85, tile) if rng.random() < 0.6 else bricks(a, a * 0.75, tile, tile / 2)
    if place == "track":
        gravel, sleeper = noise(rng, (0.48, 0.44, 0.40), 0.3, 0.2), (0.30, 0.22, 0.16)

        def track(p):
            x, y = p[0], p[1]
            on_sleeper = (np.abs(y) < 1.3) & (np.mod(x / 0.7, 1) < 0.35)
            on_rail = np.abs(np.abs(y) - 0.75) < 0.08
            colour = np.where(on_sleeper, np.asarray(sleeper)[:, None], gravel(p))
            return np.where(on_rail, np.asarray([(0.7,), (0.7,), (0.72,)]), colour)

        return "track", track
    grey = noise(rng, vary(rng, (0.36, 0.36, 0.38)), 1.5, 0.06)
    paint = COLOURS["yellow"] if place == "runway" else COLOURS["white"]

    def marked(p):
        line = (np.abs(np.abs(p[1]) - 2.6) < 0.09) & (np.mod(p[0] / 3.0, 1) < 0.6)
        return np.where(line, np.asarray(paint)[:, None], grey(p))

    return ("runway" if place == "runway" else "road"), marked


def outdoors(rng: np.random.Generator, scene: Scene, layout: Layout, place: str, distance: float, clear) -> None:
    """Ground, sky and sun; trees, houses, walls, fences and hills behind the objects."""
    main = scene.things[0]
    name, texture = ground_texture(rng, place, main)
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
    makers = {
        "road": (clutter.building, clutter.building, clutter.tree),
        "field": (clutter.tree, clutter.fence, clutter.tree, clutter.rock),
        "square": (clutter.garden_wall, clutter.garden_wall, clutter.building, clutter.bench),
        "beach": (clutter.rock, clutter.mountain),
        "water": (clutter.mountain, clutter.rock),
        "runway": (clutter.building, clutter.mountain),
        "track": (clutter.building, clutter.tree, clutter.fence),
    }[place]
    for _ in range(rng.integers(2, 6)):
        make = makers[rng.integers(len(makers))]
        if make is clutter.mountain:
            if not any(thing.name == "mountain" for thing in layout.things):
                layout.add(clutter.mountain(rng).move((rng.uniform(-15, 15), 70 + back, 0)), solid=False)
        elif make is clutter.building or make is clutter.garden_wall:
            layout.try_to_place(make, (back + 4, back + 16), 0.9, 0.5)
        elif make in (clutter.rock, clutter.bench):
            layout.try_to_place(make, (max(1.0, distance * 0.8), back + 3), 0.9, 0.5, clear)
        else:
            layout.try_to_place(make, (max(back, 3.0), back + 8), 0.9, 0.4)
    if rng.random() < 0.25 and place in ("road", "square", "track"):
        layout.try_to_place(clutter.cardboard, (max(1.0, distance * 0.8), distance * 1.4), 0.9, 0.6, clear)
    scene.things += [Thing(name, [ground], stuff=True)]

    weather = str(rng.choice(["blue", "blue", "grey", "evening"]))
    zenith = {"blue": (0.28, 0.50, 0.85), "grey": (0.66, 0.69, 0.73), "evening": (0.45, 0.48, 0.70)}[weather]
    horizon = {"blue": (0.74, 0.85, 0.95), "grey": (0.80, 0.81, 0.82), "evening": (0.95, 0.72, 0.52)}[weather]
    scene.sky = (vary(rng, horizon, 0.03).astype(np.float32), vary(rng, zenith, 0.03).astype(np.float32))
    azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.15)
    sun = np.asarray([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
    if sun[1] > 0.3:  # mostly behind the camera, so that the objects' visible sides are lit
        sun[1] *= -1
    tint = np.asarray({"blue": (1.0, 0.97, 0.9), "grey": (1.0, 1.0, 1.0), "evening": (1.0, 0.84, 0.66)}[weather])
    strength = rng.uniform(0.35, 0.5) if weather == "grey" else rng.uniform(0.6, 0.8)
    scene.lights = [Light((middle + 60 * sun).astype(np.float32), tint * strength, True)]
    scene.ambient = np.asarray((0.36, 0.38, 0.42)) * rng.uniform(0.9, 1.2) * (1.2 if weather == "grey" else 1.0)
    sky = {"blue": "under a blue sky", "grey": "under a grey sky", "evening": "in the evening"}[weather]
    where = str(rng.choice(CAPTION_PLACES[place]))
    if main.phrase.startswith("flying"):
        where = where.replace("on ", "above ").replace("in a", "above a").replace("at an", "above an")
    scene.place = f"{where} {sky}" if rng.random() < 0.7 else where

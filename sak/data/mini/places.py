"""Where a scene takes place: a room, or one of several places out of doors."""

from __future__ import annotations

import numpy as np

from sak.data.mini.layout import Layout
from sak.data.mini.primitives import Plane, rotation
from sak.data.mini.scene import Light, Scene
from sak.data.mini.texture import COLOURS, bricks, checker, noise, solid, stripes, vary, wood
from sak.data.mini.things import clutter
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


def room(rng: np.random.Generator, scene: Scene, layout: Layout, distance: float) -> None:
    """Floor, ceiling and three walls around everything, wall furniture, clutter on the floor, lamps."""
    for _ in range(rng.integers(1, 4)):
        make = clutter.ON_FLOOR[rng.integers(len(clutter.ON_FLOOR))]
        layout.try_to_place(make, (max(0.8, distance * 0.8), distance * 1.6 + 1.0), 0.9, 0.6)
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


def ground_texture(rng: np.random.Generator, place: str):
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


def outdoors(rng: np.random.Generator, scene: Scene, layout: Layout, place: str, distance: float) -> None:
    """Ground, sky and sun; trees, houses, walls, fences and hills behind the objects."""
    main = scene.things[0]
    name, texture = ground_texture(rng, place)
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
            layout.try_to_place(make, (max(1.0, distance * 0.8), back + 3), 0.9, 0.5)
        else:
            layout.try_to_place(make, (max(back, 3.0), back + 8), 0.9, 0.4)
    if rng.random() < 0.25 and place in ("road", "square", "track"):
        layout.try_to_place(clutter.cardboard, (max(1.0, distance * 0.8), distance * 1.4), 0.9, 0.6)
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

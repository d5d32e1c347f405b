"""A room around a scene's objects: floor, ceiling, three walls, what hangs on them and lies about, and lamps."""

from __future__ import annotations

import numpy as np

from sak.data.mini.dice import Dice
from sak.data.mini.places.layout import Layout
from sak.data.mini.primitives import Plane, rotation
from sak.data.mini.scene import Light, Scene
from sak.data.mini.texture import WALLS, any_colour, below, furniture, solid, surface, vary
from sak.data.mini.things import clutter
from sak.data.mini.things.thing import Thing


def room(rng: Dice, scene: Scene, layout: Layout, distance: float) -> None:
    """Floor, ceiling and three walls around everything, wall furniture, clutter on the floor, lamps."""
    for _ in range(rng.integers(1, 5)):
        make = clutter.ON_FLOOR[rng.integers(len(clutter.ON_FLOOR))]
        layout.try_to_place(make, (max(0.8, distance * 0.8), distance * 1.6 + 1.0), 0.9, 0.6)
    if rng.random() < 0.35:
        layout.add(clutter.rug(rng).move((rng.uniform(-0.6, 0.6), distance, 0), rng.uniform(-0.5, 0.5)), solid=False)

    turn = rotation(2, rng.uniform(-0.6, 0.6) if rng.random() < 0.6 else rng.uniform(-0.15, 0.15))
    corners = np.concatenate([p.corners()[:2] for t in layout.things for p in t.primitives], axis=1)
    about = np.asarray([[-0.4, 0.4, 0], [0, 0, -0.4]])[:, :, None] + layout.cameras[:, None]
    plan = turn[:2, :2].T @ np.concatenate([corners, about.reshape(2, -1)], axis=1)
    left, right = plan[0].min() - rng.uniform(0.1, 1.3), plan[0].max() + rng.uniform(0.1, 1.3)
    back, high = plan[1].max() + rng.uniform(0.05, 0.8), rng.uniform(2.4, 3.0)
    name, paper = surface(rng, WALLS, 1.0)
    if rng.paint.random() < 0.25:
        paper = below(surface(rng, WALLS, 0.7)[1], paper, rng.paint.uniform(0.8, 1.2))
    second = surface(rng, WALLS, 1.0)[1] if rng.paint.random() < 0.3 else paper
    boards = furniture(rng, any_colour(rng, "brown beige grey white"))
    ground = boards if rng.paint.random() < 0.35 else surface(rng, WALLS, 0.8)[1]

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
        if rng.random() < 0.6:
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

    light = rng.paint
    warm = np.asarray([1.0, light.uniform(0.85, 1.0), light.uniform(0.7, 1.0)])
    at = turn @ np.asarray([light.uniform(left * 0.5, right * 0.5), light.uniform(0.2, 0.75) * back, high - 0.1])
    power, fill = light.uniform(0.5, 0.9), light.uniform(0.06, 0.25)
    scene.lights = [Light(at.astype(np.float32), warm * power, True)]
    scene.lights.append(Light(np.asarray([light.uniform(-1, 1), -0.3, 1.8], np.float32), np.full(3, fill), False))
    scene.ambient = warm * light.uniform(0.26, 0.42)

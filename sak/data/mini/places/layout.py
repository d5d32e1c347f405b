"""The ground plan of a scene in the making."""

from __future__ import annotations

import numpy as np

from sak.data.mini.dice import Dice
from sak.data.mini.things.builders import Builder
from sak.data.mini.things.thing import Thing


class Layout:
    """Keeps the ground plan: puts things where their footprints do not overlap."""

    def __init__(self, rng: Dice, focal: float):
        self.rng, self.focal = rng, focal
        self.things: list[Thing] = []
        self.footprints: list[np.ndarray] = []  # (x0, y0, x1, y1)
        self.main_view = (0.0, 0.0, 0.0)  # columns u0, u1 and depth of the main object; at first of nothing
        self.cameras = np.zeros((2, 1), np.float32)  # ground positions (x, y) from which the scene may be seen

    def add(self, thing: Thing, solid: bool = True) -> None:
        low, high = thing.bounds()
        self.things.append(thing)
        if solid:
            self.footprints.append(np.asarray([*low[:2], *high[:2]]))

    def is_free(self, thing: Thing) -> bool:
        low, high = thing.bounds()
        near = self.cameras[1].max() + 0.3
        return low[1] > near and all(
            high[0] < x0 or low[0] > x1 or high[1] < y0 or low[1] > y1 for x0, y0, x1, y1 in self.footprints
        )

    def hides_main(self, u: float, y: float) -> bool:
        return y < self.main_view[2] and self.main_view[0] < u < self.main_view[1]

    def try_to_place(self, make: Builder, depth: tuple[float, float], spread: float, yaw: float) -> bool:
        """Put a thing at a random depth (metres) and image column (|u| < spread), turned by at most `yaw`.

        Nothing is put straight in front of the main object; False if no free place was found.
        """
        thing = make(self.rng)
        for _ in range(20):
            y = self.rng.uniform(depth[0], max(depth[1], depth[0] + 0.3))
            u = self.rng.uniform(-spread, spread)
            if self.hides_main(u, y):
                continue
            turn = self.rng.uniform(-yaw, yaw)
            thing.move(yaw=turn).move((u * y / self.focal, y, 0))
            if self.is_free(thing):
                self.add(thing)
                return True
            thing.move((-u * y / self.focal, -y, 0)).move(yaw=-turn)
        return False

    def put_on(self, make: Builder, support: Thing, share: float = 0.35) -> Thing:
        """Stand a new thing on the top of another."""
        low, high = support.bounds()
        middle, reach = (low + high) / 2, (high - low) * share
        thing = make(self.rng).move(yaw=self.rng.uniform(-0.6, 0.6))
        x, y = middle[:2] + reach[:2] * self.rng.uniform(-1, 1, 2)
        thing.move((x, y, support.top))
        self.add(thing, solid=False)
        return thing

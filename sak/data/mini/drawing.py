"""Numbered scenes: what a seed, a split and an index stand for, and the same scene seen again."""

from __future__ import annotations

import numpy as np

from sak.data.mini.caption import caption
from sak.data.mini.dice import Dice
from sak.data.mini.places.compose import ORBIT, random_scene
from sak.data.mini.render import Rendering, render
from sak.data.mini.scene import Scene

SPLITS = ("train", "val", "unlabelled")
MAIN_SHARE = 0.03  # a scene whose main object covers less of the image is drawn anew


def draw(seed: int, split: str, index: int, size: int) -> tuple[Scene, Rendering, str]:
    """Scene, rendering and caption number `index` of a split; depends on nothing else."""
    return draw_twice(seed, split, index, size, again=False)[:3]


def draw_twice(
    seed: int, split: str, index: int, size: int, again: bool = True
) -> tuple[Scene, Rendering, str, Rendering | None]:
    """What `draw` gives, and the same scene in other colours and another light, seen from up to 10° to the side."""
    for attempt in range(10):
        key = (seed, SPLITS.index(split), index, attempt)
        dice = Dice(key, (*key, 0))
        scene = random_scene(dice, size)
        rendering = render(scene)
        if main_share(rendering) >= MAIN_SHARE:
            break
    sentence = caption(scene, rendering, dice)
    return scene, rendering, sentence, draw_again(key, size) if again else None


def draw_again(key: tuple[int, ...], size: int) -> Rendering:
    """The scene of this key, painted anew; turned less if something hides the main object from there."""
    turn = np.random.default_rng((*key, 1)).uniform(-ORBIT, ORBIT)
    for angle in (turn, -turn / 2, 0.0):
        rendering = render(random_scene(Dice(key, (*key, 1)), size, turn=angle))
        if main_share(rendering) >= MAIN_SHARE:
            break
    return rendering


def main_share(rendering: Rendering) -> float:
    """The share of the image that the main object covers."""
    return float((rendering.instances == 1).mean())

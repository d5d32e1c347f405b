"""A thing: one object (or one piece of background) of a scene, made of primitives in its own frame.

Own frame: origin on the ground below the middle, front towards -y, z up, metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sak.data.mini.classes import VOC_ID
from sak.data.mini.primitives import Primitive, Vector, rotation


@dataclass
class Thing:
    name: str  # PASCAL-Context's name
    primitives: Sequence[Primitive]
    phrase: str = ""  # as a caption says it, without an article: "red car"
    voc: str = "background"
    stuff: bool = False  # background without instances: walls, ground, sky
    top: float = 0.0  # height at which it can carry other things

    @property
    def voc_id(self) -> int:
        return VOC_ID[self.voc]

    def move(self, shift: Vector = (0, 0, 0), yaw: float = 0.0, scale: float = 1.0, roll: float = 0.0) -> Thing:
        """Scale, turn (pitch the nose up by `roll`, then yaw about z) and shift, in place; returns itself."""
        if yaw or roll or scale != 1:
            turn = rotation(2, yaw) @ rotation(1, roll)
            for primitive in self.primitives:
                primitive.turn(turn, scale)
        if any(shift):
            by = np.asarray(shift)
            for primitive in self.primitives:
                primitive.shift(by)
        self.top = self.top * scale + shift[2]
        return self

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        lows, highs = zip(*(primitive.bounds() for primitive in self.primitives), strict=True)
        return np.min(lows, axis=0), np.max(highs, axis=0)


def with_article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase

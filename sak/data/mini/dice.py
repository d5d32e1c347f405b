"""The random numbers of a scene: what there is, and apart from it how it is painted and lit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Dice(np.random.Generator):
    """A generator for shapes and places, with another one, `paint`, for colours, patterns and light.

    Equal `seed` and another `paint` make the same scene in other colours and another light. For that to hold, what is
    drawn from the dice themselves may never depend on what was drawn from `paint`.
    """

    def __init__(self, seed: Sequence[int], paint: Sequence[int]):
        super().__init__(np.random.PCG64(list(seed)))
        self.paint = np.random.default_rng(list(paint))

"""What the kinds of samples have in common."""

from typing import NamedTuple, Protocol

import numpy as np


class Drawn(NamedTuple):
    """
    Attributes:
        image: uint8 (H, W, 3).
    """

    image: np.ndarray
    prompt: str
    answer: str


def grown(number: int, growth: int) -> float:
    """How far a sample has grown, from 0 for the first to 1 for that of number `growth` and all after it."""
    return min(1.0, number / growth) if growth else 1.0


class Source(Protocol):
    """One kind of samples of one split."""

    def __len__(self) -> int:
        """How many different things it has to show; 0 if it draws them, and never ends."""

    def sample(self, number: int, rng: np.random.Generator) -> Drawn:
        """Its sample of a number; what is random about it is drawn from `rng`."""

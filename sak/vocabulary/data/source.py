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


Growth = tuple[int, int]  # the number of a sample up to which nothing grows, and that from which all is grown
FULL: Growth = (0, 0)


def grown(number: int, growth: Growth) -> float:
    """How far a sample has grown, from 0 to 1."""
    start, end = growth
    return 1.0 if number >= end else max(0.0, (number - start) / (end - start))


class Source(Protocol):
    """One kind of samples of one split."""

    def __len__(self) -> int:
        """How many different things it has to show; 0 if it draws them, and never ends."""

    def sample(self, number: int, rng: np.random.Generator) -> Drawn:
        """Its sample of a number; what is random about it is drawn from `rng`."""

"""Times that can be compared on a machine that does other things too."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Ratio(NamedTuple):
    """Seconds of two functions, medians over the rounds, and how many times as long the second took in each round."""

    first: float
    second: float
    low: float
    median: float
    high: float


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def alternate(first: Callable[[], object], second: Callable[[], object], rounds: int) -> Ratio:
    """Run both in turn, after one round that does not count: what slows the machine down slows both."""
    times = [(seconds(first), seconds(second)) for _ in range(rounds + 1)][1:]
    ratios = sorted(two / one for one, two in times)
    medians = (statistics.median(column) for column in zip(*times, strict=True))
    return Ratio(*medians, ratios[0], statistics.median(ratios), ratios[-1])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; all columns but the first are aligned to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))

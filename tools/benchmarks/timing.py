"""Times that can be compared on a machine that does other things too."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sak import tables


class Ratio(NamedTuple):
    """Seconds of two functions, medians over the rounds, and how many times as long the second took in each round."""

    first: float
    second: float
    low: float
    median: float
    high: float


Clock = Callable[[], float]


def seconds(function: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    start = clock()
    function()
    return clock() - start


def alternate(
    first: Callable[[], object],
    second: Callable[[], object],
    rounds: int,
    clock: Clock = time.perf_counter,
    warm_up: int = 1,
) -> Ratio:
    """Run both in turn, after ``warm_up`` rounds that do not count: what slows the machine down slows both."""
    times = [(seconds(first, clock), seconds(second, clock)) for _ in range(warm_up + rounds)][warm_up:]
    return ratio(times)


def ratio(times: Sequence[tuple[float, float]]) -> Ratio:
    """Of the seconds that both took in each round."""
    ratios = sorted(two / one for one, two in times)
    medians = (statistics.median(column) for column in zip(*times, strict=True))
    return Ratio(*medians, ratios[0], statistics.median(ratios), ratios[-1])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    return tables.markdown([header, *rows])

"""Which teachers are worth having: greedy forward selection and Shapley values, of any game on them.

A game gives a value to each coalition, a set of teachers; what it is here, `sak.research.selection.game` measures on
masked students. N teachers, v the value.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy import stats

from sak.errors import UserError
from sak.metrics.interval import half_width

Coalition = frozenset[str]
Game = Callable[[Sequence[Coalition]], Sequence[float]]  # the values of these coalitions, in their order

EXACT_UP_TO = 6  # teachers: all 64 coalitions


@dataclass
class Shapley:
    """
    Attributes:
        values: {teacher: its Shapley value}; they sum to v(all) - v(none).
        intervals: {teacher: half the width of its 95 % confidence interval}; None where the values are exact.
        coalitions: how many were asked for.
    """

    values: dict[str, float]
    intervals: dict[str, float] | None
    coalitions: int


def greedy(teachers: Sequence[str], game: Game) -> list[tuple[str, float]]:
    """Forward selection: [(teacher that raises v most, v with it)], from none to all; the first named wins a tie."""
    chosen: list[tuple[str, float]] = []
    left = list(teachers)
    while left:
        have = {teacher for teacher, _ in chosen}
        values = game([frozenset({*have, candidate}) for candidate in left])
        best = max(range(len(left)), key=values.__getitem__)
        chosen.append((left.pop(best), values[best]))
    return chosen


def shapley(teachers: Sequence[str], game: Game, pairs: int = 20, seed: int = 0) -> Shapley:
    """Exact values up to `EXACT_UP_TO` teachers, sampled ones beyond."""
    if len(teachers) <= EXACT_UP_TO:
        return exact_shapley(teachers, game)
    return sampled_shapley(teachers, game, pairs, seed)


def exact_shapley(teachers: Sequence[str], game: Game) -> Shapley:
    """φ_i = Σ_{S without i} |S|! (N - |S| - 1)! / N! · (v(S + i) - v(S)), over all coalitions (Shapley, 1953)."""
    count = len(teachers)
    coalitions = all_coalitions(teachers)
    value = dict(zip(coalitions, game(coalitions), strict=True))
    # How often, over all orders of joining, i finds exactly S before it.
    share = [1 / (count * math.comb(count - 1, size)) for size in range(count)]
    values = {
        teacher: math.fsum(share[len(s)] * (value[s | {teacher}] - value[s]) for s in coalitions if teacher not in s)
        for teacher in teachers
    }
    return Shapley(values, None, len(coalitions))


def sampled_shapley(teachers: Sequence[str], game: Game, pairs: int, seed: int = 0) -> Shapley:
    """The mean gain of each teacher as it joins, over random orders (Castro et al., 2009), each with its reverse.

    The antithetic reverse (Mitchell et al., arXiv 2104.12199) makes one that joins late join early. Pairs are
    independent: the intervals are Student's, over the pairs' means.

    Args:
        pairs: of orders, at least 2.

    Raises:
        UserError: too few pairs.
    """
    if pairs < 2:
        raise UserError(f"{pairs} pairs of orders give no confidence interval: sample at least 2")
    random = np.random.default_rng(seed)
    orders = [random.permutation(len(teachers)) for _ in range(pairs)]
    # {order: the coalitions that it passes, from none to all}
    passed = [
        [frozenset(teachers[index] for index in order[:size]) for size in range(len(teachers) + 1)]
        for forward in orders
        for order in (forward, forward[::-1])
    ]
    coalitions = list(dict.fromkeys(itertools.chain(*passed)))
    value = dict(zip(coalitions, game(coalitions), strict=True))
    gains = np.empty((2 * pairs, len(teachers)))
    for row, chain in enumerate(passed):
        for before, after in itertools.pairwise(chain):
            (joined,) = after - before
            gains[row, teachers.index(joined)] = value[after] - value[before]
    of_pairs = gains.reshape(pairs, 2, -1).mean(1)
    halves = [cast(float, half_width(of_teacher)) for of_teacher in of_pairs.T.tolist()]
    return Shapley(
        dict(zip(teachers, of_pairs.mean(0).tolist(), strict=True)),
        dict(zip(teachers, halves, strict=True)),
        len(coalitions),
    )


def all_coalitions(teachers: Sequence[str]) -> list[Coalition]:
    """All 2^N, from none to all."""
    sizes = range(len(teachers) + 1)
    return [frozenset(members) for size in sizes for members in itertools.combinations(teachers, size)]


def rank_correlation(one: Iterable[float], other: Iterable[float]) -> float | None:
    """Spearman's ρ of paired values; None of fewer than 3 pairs, or where all values of a side are equal."""
    one, other = list(one), list(other)
    if len(one) < 3 or len(set(one)) == 1 or len(set(other)) == 1:
        return None
    return float(stats.spearmanr(one, other).statistic)

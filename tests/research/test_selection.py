"""The arithmetic of choosing teachers, on made-up games whose answers are known."""

import itertools
import math

import numpy as np
import pytest

from sak.errors import UserError
from sak.research.selection.shapley import (
    EXACT_UP_TO,
    all_coalitions,
    exact_shapley,
    greedy,
    rank_correlation,
    sampled_shapley,
    shapley,
)

NAMES = ["a", "b", "c", "d", "e", "f", "g"]


def game_of(value):
    return lambda coalitions: [value(coalition) for coalition in coalitions]


def random_game(players, seed):
    """A value for every coalition, with no structure at all."""
    values = np.random.default_rng(seed).normal(size=2 ** len(players))
    return game_of(dict(zip(all_coalitions(players), values.tolist(), strict=True)).__getitem__)


def by_definition(players, game):
    """The mean gain of each player over all orders."""
    gains = dict.fromkeys(players, 0.0)
    for order in itertools.permutations(players):
        for place, player in enumerate(order):
            before, after = game([frozenset(order[:place]), frozenset(order[: place + 1])])
            gains[player] += (after - before) / math.factorial(len(players))
    return gains


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_values_sum_to_what_all_bring_over_none(count):
    players, game = NAMES[:count], random_game(NAMES[:count], seed=count)
    none, everyone = game([frozenset(), frozenset(players)])
    assert sum(exact_shapley(players, game).values.values()) == pytest.approx(everyone - none, abs=1e-12)
    assert sum(sampled_shapley(players, game, pairs=3).values.values()) == pytest.approx(everyone - none, abs=1e-12)


def test_exact_values_are_the_mean_over_all_orders():
    players = NAMES[:5]
    game = random_game(players, seed=1)
    found = exact_shapley(players, game)
    assert found.values == pytest.approx(by_definition(players, game), abs=1e-12)
    assert found.intervals is None
    assert found.coalitions == 32


def test_equal_players_are_worth_the_same_and_a_dummy_its_own_gain():
    def value(coalition):
        # a and b do the same; c adds 2 to whatever there is; d adds nothing.
        return 3.0 * (len(coalition & {"a", "b"}) ** 2) + 2.0 * ("c" in coalition) + 1

    for found in (exact_shapley(NAMES[:4], game_of(value)), sampled_shapley(NAMES[:4], game_of(value), pairs=5)):
        assert found.values["c"] == pytest.approx(2)
        assert found.values["d"] == pytest.approx(0, abs=1e-12)
    exact = exact_shapley(NAMES[:4], game_of(value)).values
    assert exact["a"] == pytest.approx(exact["b"]) == pytest.approx(6)


def test_antithetic_pairs_are_exact_where_gains_depend_on_one_other_player():
    def value(coalition):
        # One of a pair of orders has a before b, the other b before a.
        return float(len(coalition)) + 5.0 * ({"a", "b"} <= coalition)

    found = sampled_shapley(NAMES, game_of(value), pairs=2)
    assert found.values == pytest.approx({"a": 3.5, "b": 3.5, **dict.fromkeys("cdefg", 1.0)})
    assert all(half == pytest.approx(0, abs=1e-9) for half in found.intervals.values())


def test_sampled_values_agree_with_exact_ones_within_their_interval():
    game = random_game(NAMES, seed=7)
    exact = exact_shapley(NAMES, game).values
    found = sampled_shapley(NAMES, game, pairs=200, seed=0)
    assert all(abs(found.values[name] - exact[name]) <= found.intervals[name] for name in NAMES)
    assert all(0 < half < 0.3 for half in found.intervals.values())


def test_intervals_hold_the_exact_value_as_often_as_they_say():
    game = random_game(NAMES, seed=11)
    exact = exact_shapley(NAMES, game).values
    hits = [
        abs(found.values[name] - exact[name]) <= found.intervals[name]
        for found in (sampled_shapley(NAMES, game, pairs=10, seed=seed) for seed in range(100))
        for name in NAMES
    ]
    assert 0.92 < np.mean(hits) < 0.98


def test_the_seed_decides_and_beyond_six_teachers_values_are_sampled():
    game = random_game(NAMES, seed=2)
    assert sampled_shapley(NAMES, game, 5, seed=0) == sampled_shapley(NAMES, game, 5, seed=0)
    assert sampled_shapley(NAMES, game, 5, seed=0).values != sampled_shapley(NAMES, game, 5, seed=1).values
    assert len(NAMES) > EXACT_UP_TO
    assert shapley(NAMES, game, pairs=4).intervals is not None
    assert shapley(NAMES[:6], random_game(NAMES[:6], 0)).intervals is None
    with pytest.raises(UserError, match="at least 2"):
        shapley(NAMES, game, pairs=1)


def test_no_coalition_is_asked_for_twice():
    asked = []

    def game(coalitions):
        asked.extend(coalitions)
        return [float(len(coalition)) for coalition in coalitions]

    found = sampled_shapley(NAMES, game, pairs=50)
    assert len(asked) == len(set(asked)) == found.coalitions <= 2 ** len(NAMES)


def test_greedy_takes_the_best_next_one_even_where_a_pair_would_be_better():
    values = {"": 0, "a": 5, "b": 1, "c": 2, "ab": 6, "ac": 5.5, "bc": 9, "abc": 10}
    found = greedy(["a", "b", "c"], game_of(lambda coalition: values["".join(sorted(coalition))]))
    assert found == [("a", 5), ("b", 6), ("c", 10)]
    tied = greedy(["b", "a"], game_of(len))
    assert [name for name, _ in tied] == ["b", "a"]


def test_rank_correlation():
    assert rank_correlation([1, 2, 3, 10], [0.1, 0.2, 0.3, 0.4]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [9, 5, -1]) == pytest.approx(-1)
    assert rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None

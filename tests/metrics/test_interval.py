import math

import numpy as np
import pytest

from sak.metrics.interval import BETTER, NOTHING, UNKNOWN, WORSE, finding, half_width, plus_minus, spread

# 97.5 % quantiles of Student's t as printed in tables, by degrees of freedom.
TABLE = {1: 12.706, 2: 4.303, 4: 2.776, 9: 2.262}


@pytest.mark.parametrize("freedom", TABLE)
def test_the_half_width_is_that_of_the_printed_table(freedom):
    values = np.random.default_rng(freedom).normal(size=freedom + 1)
    standard_error = values.std(ddof=1) / math.sqrt(len(values))
    assert half_width(values.tolist()) == pytest.approx(TABLE[freedom] * standard_error, rel=3e-4)


def test_intervals_of_three_hold_the_truth_as_often_as_they_say():
    draws = np.random.default_rng(0).normal(size=(4000, 3))
    held = np.mean([abs(values.mean()) <= half_width(values.tolist()) for values in draws])
    assert 0.94 < held < 0.96
    within_a_deviation = np.mean(np.abs(draws.mean(1)) <= draws.std(1, ddof=1))
    # What ± one standard deviation holds: |t| < √3 with 2 degrees of freedom.
    assert within_a_deviation == pytest.approx(math.sqrt(3 / 5), abs=0.02)


def test_the_spread_of_values():
    assert spread([1.0, 2.0, 3.0]) == {"mean": 2, "std": 1, "ci95": pytest.approx(2.484, abs=1e-3), "values": [1, 2, 3]}
    assert spread([5.0]) == {"mean": 5, "std": None, "ci95": None, "values": [5]}
    assert spread([]) is None


def test_for_people():
    assert plus_minus([1.0, 2.0, 3.0], "+.2f") == "+2.00 ± 2.48"
    assert plus_minus([-0.001], "+.2f") == "+0.00"
    assert plus_minus([], ".2f") == UNKNOWN


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ([1.0, 2.0, 3.0], NOTHING),  # 2 ± 2.48
        ([1.0, 1.5, 2.0], BETTER),  # 1.5 ± 1.24
        ([-1.0, -1.5, -2.0], WORSE),
        ([-25.0, -25.0], WORSE),  # without any spread
        ([-0.25, -0.25], WORSE),
        ([0.25, 0.25], BETTER),
        ([0.0, 0.0, 0.0], NOTHING),
        ([9.0], UNKNOWN),
        ([], UNKNOWN),
    ],
)
def test_a_gain_whose_interval_holds_0_is_no_finding(gains, expected):
    assert finding(gains) == expected

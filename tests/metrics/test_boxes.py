import itertools

import numpy as np
import pytest

from sak.metrics.boxes import BoxScores, iou, match

A, B, C = (0, 0, 10, 10), (0, 0, 10, 5), (20, 20, 30, 30)


def test_iou():
    np.testing.assert_allclose(iou([A, B], [A, B, C]), [[1, 0.5, 0], [0.5, 1, 0]])
    assert iou([(0, 0, 0, 0)], [(0, 0, 0, 0)]) == 0
    assert iou([], [A]).shape == (0, 1)


def test_most_pairs_before_best_overlaps():
    """Greedily the best pair first would leave the other true box without one."""
    true = [(0, 0, 10, 10), (0, 0, 10, 6)]
    found = [(0, 0, 10, 8), (0, 0, 10, 14)]
    overlaps = iou(found, true)
    assert overlaps[0, 0] == pytest.approx(0.8)
    assert overlaps[1, 1] < 0.5
    assert sorted(match(found, true)) == pytest.approx([10 / 14, 0.75])


def test_as_many_pairs_as_trying_all_would_find():
    rng = np.random.default_rng(0)
    for _ in range(60):
        boxes = [
            [(x, y, x + w, y + h) for x, y, w, h in rng.uniform(1, 6, (rng.integers(1, 5), 4)).tolist()]
            for _ in range(2)
        ]
        enough = iou(*boxes) >= 0.5
        shorter, longer = sorted(enough.shape)
        table = enough if enough.shape[0] == shorter else enough.T
        most = max(
            sum(table[k, c] for k, c in enumerate(order)) for order in itertools.permutations(range(longer), shorter)
        )
        assert len(match(*boxes)) == most


def test_classes_are_matched_with_themselves():
    scores = BoxScores.of({"Dog": [A], "cat": [C]}, {"dog": [A, C]})
    assert (scores.found, scores.true, scores.matched) == (2, 2, [1.0])
    assert scores.precision == scores.recall == scores.f1 == 0.5


def test_counts_are_added_over_images():
    total = (
        BoxScores.of({"dog": [A]}, {"dog": [B]}) + BoxScores.of({"dog": [A, C]}, {}) + BoxScores.of({}, {"dog": [A]})
    )
    assert total.precision == pytest.approx(1 / 3)
    assert total.recall == 0.5
    assert total.f1 == pytest.approx(2 / 5)
    assert total.mean_iou == 0.5


def test_nothing_found_where_nothing_is_is_right():
    assert BoxScores.of({}, {}).f1 == 1
    assert BoxScores.of({"dog": [A]}, {}).f1 == 0
    assert BoxScores.of({}, {"dog": [A]}).f1 == 0
    assert BoxScores.of({}, {}).mean_iou == 0

import numpy as np
import pytest

from sak.metrics.text import (
    anls,
    common_in_order,
    edit_distance,
    exact_words,
    normalised_edit_distance,
    relaxed_accuracy,
)


def by_hand(one, other):
    """The recursion of Levenshtein, as a text book has it."""
    rows = [[max(i, j) if not i or not j else 0 for j in range(len(other) + 1)] for i in range(len(one) + 1)]
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            changed = rows[i - 1][j - 1] + (one[i - 1] != other[j - 1])
            rows[i][j] = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, changed)
    return rows[-1][-1]


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("", "", 0), ("ab", "ba", 2)],
)
def test_edit_distance(one, other, distance):
    assert edit_distance(one, other) == distance == by_hand(one, other)


def test_edit_distance_of_random_texts_is_the_text_books():
    rng = np.random.default_rng(0)
    for _ in range(100):
        one, other = ("".join(rng.choice(list("abc"), rng.integers(0, 12))) for _ in range(2))
        assert edit_distance(one, other) == by_hand(one, other)


def test_normalised_by_the_longer_text():
    assert normalised_edit_distance("abcd", "ab") == 0.5
    assert normalised_edit_distance("", "") == 0
    assert normalised_edit_distance("x", "") == 1


def test_anls_has_a_threshold_and_no_case():
    assert anls("Kitten", "kitten ") == 1
    assert anls("abcx", "abcd") == 0.75
    assert anls("abxx", "abcd") == 0  # half of it is wrong
    assert anls("abxcd", "abcde") == pytest.approx(0.6)
    assert anls("", "") == 1
    assert anls("a", "") == 0


def test_exact_words():
    assert exact_words("the cat sat", "the cat sat") == 1
    assert exact_words("the bat sat", "the cat sat") == pytest.approx(2 / 3)
    assert exact_words("cat the", "the cat") == 0.5  # order counts
    assert exact_words("the cat sat down there", "the cat") == 0.4  # what is too much counts
    assert exact_words("", "") == 1
    assert exact_words("", "a") == 0
    assert common_in_order("abcbdab", "bdcaba") == 4  # the example of Cormen et al., section 15.4


@pytest.mark.parametrize(
    ("prediction", "truth", "right"),
    [
        ("95", "100", 1),
        ("94.9", "100", 0),
        ("105", "100", 1),
        ("1,000", "1000", 1),
        ("52%", "50", 1),
        ("0", "0", 1),
        ("0.1", "0", 0),
        ("Pine", "pine", 1),
        ("pines", "pine", 0),
        ("pine", "3", 0),
        ("", "3", 0),
        ("nan", "3", 0),
    ],
)
def test_relaxed_accuracy(prediction, truth, right):
    assert relaxed_accuracy(prediction, truth) == right

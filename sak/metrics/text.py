"""How well a text was read: edit distance, ANLS, exact words; and answers of charts with ChartQA's tolerance."""

from collections.abc import Sequence

import numpy as np

THRESHOLD = 0.5  # of ANLS: a normalised distance from here on scores nothing
TOLERANCE = 0.05  # of a number in a chart, as a share of the true one


def edit_distance(one: Sequence, other: Sequence) -> int:
    """The fewest insertions, deletions and replacements that turn one into the other (Levenshtein)."""
    letters, steps = _numbered(one, other), np.arange(len(other) + 1)
    row = steps.copy()
    for number, letter in enumerate(letters[0], 1):
        new = np.minimum(row[1:] + 1, row[:-1] + (letters[1] != letter))
        new = np.concatenate([[number], new])
        # an insertion goes on from the place at its left: the least of all that lie there and the way from them
        row = np.minimum.accumulate(new - steps) + steps
    return int(row[-1])


def normalised_edit_distance(prediction: str, truth: str) -> float:
    """From 0, equal, to 1: the edit distance as a share of the longer text."""
    longer = max(len(prediction), len(truth))
    return edit_distance(prediction, truth) / longer if longer else 0.0


def anls(prediction: str, truth: str) -> float:
    """Average normalised Levenshtein similarity of one answer (Biten et al., ICCV 2019, eq. 1), as in DocVQA.

    Letters' case and runs of white space make no difference.
    """
    distance = normalised_edit_distance(_plain(prediction), _plain(truth))
    return 1 - distance if distance < THRESHOLD else 0.0


def exact_words(prediction: str, truth: str) -> float:
    """Share of the words that are read exactly and in their order, of those of the longer text; 1 if both are empty."""
    one, other = prediction.split(), truth.split()
    longer = max(len(one), len(other))
    return common_in_order(one, other) / longer if longer else 1.0


def common_in_order(one: Sequence, other: Sequence) -> int:
    """Length of the longest common subsequence."""
    words = _numbered(one, other)
    row = np.zeros(len(other) + 1, np.int64)
    for word in words[0]:
        row[1:] = np.maximum(row[1:], row[:-1] + (words[1] == word))
        row = np.maximum.accumulate(row)
    return int(row[-1])


def relaxed_accuracy(prediction: str, truth: str) -> float:
    """1 if a number is within `TOLERANCE` of the true one, or another answer the same; else 0 (ChartQA, ACL 2022)."""
    one, other = _number(prediction), _number(truth)
    if one is not None and other is not None:
        return float(abs(one - other) <= TOLERANCE * abs(other) + 1e-9)
    return float(_plain(prediction) == _plain(truth))


def _numbered(*sequences: Sequence) -> list[np.ndarray]:
    """Equal elements as equal numbers."""
    numbers: dict = {}
    return [np.array([numbers.setdefault(item, len(numbers)) for item in items], np.int64) for items in sequences]


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _number(text: str) -> float | None:
    try:
        return float(text.strip().removesuffix("%").replace(",", ""))
    except ValueError:
        return None

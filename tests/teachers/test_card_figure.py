"""The bars of a miniature's card."""

import numpy as np
import pytest

from teachers.pretrain.figure import bars, page

ROWS = {"class, accuracy": (31.7, 11.7), "patches, accuracy": (77.1, 76.0), "patches, mIoU": (13.2, 5.0)}


def drawn(most_frequent=None):
    _, axes, _ = page("title")
    bars(axes, ROWS, ("network", "thumbnail"), most_frequent)
    return axes, [text.get_text() for text in axes.get_legend().get_texts()]


def test_a_line_marks_what_the_most_frequent_answer_reaches():
    axes, legend = drawn({"class, accuracy": 16.0, "patches, accuracy": 75.3})
    (lines,) = axes.collections
    segments = np.array(lines.get_segments())
    assert segments[:, 0, 0].tolist() == [16.0, 75.3]
    assert segments[:, :, 1].mean(axis=1).tolist() == pytest.approx([0, 1])  # across both bars of the row
    assert "most frequent answer" in legend
    places = {text.get_text(): text.get_position()[0] for text in axes.texts}
    assert places["11.7"] > 16  # it would lie below the line
    assert places["31.7"] == pytest.approx(33.7)


def test_without_one_there_is_none():
    axes, legend = drawn()
    assert not axes.collections
    assert legend == ["network", "thumbnail"]

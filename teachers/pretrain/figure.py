"""The figure of a card: bars on the left, pairs of pictures on the right."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLUMNS = 6


def page(title: str) -> tuple[Figure, Axes, np.ndarray]:
    """A figure, the axes for bars, and a (COLUMNS, 2) array of axes for pairs of pictures."""
    figure = Figure(figsize=(11, 3.1), dpi=80, layout="constrained")
    figure.suptitle(title, fontsize=10)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.9))[0]
    pictures = right.subplots(2, COLUMNS)
    for axes in pictures.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.yaxis.label.set_fontsize(8)
    return figure, left.subplots(), pictures.T


def bars(
    axes: Axes, rows: list[tuple[str, float, float]], baseline: str, most_frequent: Mapping[str, float] | None = None
) -> None:
    """One pair of bars in percent for each row: (measure, the network's, the baseline's).

    Args:
        most_frequent: {measure: percent that always giving the most frequent answer reaches}, marked by a line.
    """
    names, ours, theirs = zip(*rows, strict=True)
    place, marks = np.arange(len(rows)), [(most_frequent or {}).get(name, -1) for name in names]
    for offset, values, label, colour in ((-0.2, ours, "trained", "#2c7fb8"), (0.2, theirs, baseline, "#bdbdbd")):
        axes.barh(place + offset, values, 0.38, label=label, color=colour)
        for height, value, mark in zip(place + offset, values, marks, strict=True):
            right = mark if value < mark < value + 15 else value  # beside the mark, not below it
            axes.text(right + 2, height, f"{value:.1f}", fontsize=7, va="center")
    known = np.greater_equal(marks, 0)
    if known.any():
        heights = place[known]
        axes.vlines(np.array(marks)[known], heights - 0.42, heights + 0.42, color="black", lw=1.2, ls="--",
                    label="most frequent answer")  # fmt: skip
    axes.set_yticks(place, names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.set_xlabel("%", fontsize=7)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2, frameon=False, columnspacing=1)

"""The figure of a card: bars on the left, pairs of pictures on the right."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLUMNS = 6
COLOURS = ("#2c7fb8", "#fdae61", "#bdbdbd")  # the network, and what it is compared with


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
    axes: Axes,
    rows: Mapping[str, Sequence[float]],
    columns: Sequence[str],
    most_frequent: Mapping[str, float] | None = None,
) -> None:
    """A group of bars in percent for each measure, one bar a column, the network's first.

    Args:
        most_frequent: {measure: percent that always giving the most frequent answer reaches}, marked by a line.
    """
    height, marks = 0.8 / len(columns), [(most_frequent or {}).get(measure, -1) for measure in rows]
    for number, (label, colour) in enumerate(zip(columns, COLOURS, strict=False)):
        place = np.arange(len(rows)) + (number - (len(columns) - 1) / 2) * height
        shown = [values[number] for values in rows.values()]
        axes.barh(place, shown, height, label=label, color=colour)
        for middle, value, mark in zip(place, shown, marks, strict=True):
            right = mark if value < mark < value + 15 else value  # beside the mark, not below it
            axes.text(right + 2, middle, f"{value:.1f}", fontsize=6, va="center")
    known = np.flatnonzero(np.greater_equal(marks, 0))
    if known.size:
        axes.vlines(np.array(marks)[known], known - 0.42, known + 0.42, color="black", lw=1.2, ls="--",
                    label="most frequent answer")  # fmt: skip
    axes.set_yticks(np.arange(len(rows)), list(rows), fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.set_xlabel("%", fontsize=7)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=6, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, frameon=False)

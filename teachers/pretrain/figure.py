"""The figure of a card: bars on the left, pairs of pictures on the right."""

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


def bars(axes: Axes, rows: list[tuple[str, float, float]], baseline: str) -> None:
    """One pair of bars in percent for each row: (measure, the network's, the baseline's)."""
    names, ours, theirs = zip(*rows, strict=True)
    place = np.arange(len(rows))
    for offset, values, label, colour in ((-0.2, ours, "trained", "#2c7fb8"), (0.2, theirs, baseline, "#bdbdbd")):
        drawn = axes.barh(place + offset, values, 0.38, label=label, color=colour)
        axes.bar_label(drawn, fmt="%.1f", fontsize=7, padding=2)
    axes.set_yticks(place, names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.set_xlabel("%", fontsize=7)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)

"""Pictures of routers: weights, information, history, knock-outs, the images that lean to a source, weights per token.

Legend: N images, S sources, H,W image, h,w token grid.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from sak.plotting import heat_map
from sak.research.routing.history import History
from sak.research.routing.statistics import RouterStatistics

CELL = 1.25  # inches
Routers = Mapping[str, Mapping[int, RouterStatistics]]  # {task: {block: its router's}}


def weights_figure(routers: Routers, sources: Sequence[str]) -> Figure:
    """Mean weight ± spread over images: tasks x sources, a panel per level."""
    tasks, levels = list(routers), list(next(iter(routers.values())))
    figure = Figure(
        figsize=(1.4 + 0.75 * len(sources) * len(levels), 1.3 + 0.5 * len(tasks)), dpi=100, layout="constrained"
    )
    axes = figure.subplots(1, len(levels), squeeze=False, sharey=True)[0]
    for axis, level in zip(axes, levels, strict=True):
        mean = np.array([routers[task][level].mean.numpy() for task in tasks])
        spread = np.array([routers[task][level].spread.numpy() for task in tasks])
        text = [[f"{m:.2f}\n±{s:.2f}" for m, s in zip(*rows, strict=True)] for rows in zip(mean, spread, strict=True)]
        heat = heat_map(axis, mean, text, tasks, sources, f"block {level}", limits=(0, 1))
    figure.colorbar(heat, ax=axes, label="mean weight ± spread over images")
    return figure


def information_figure(
    entropies: np.ndarray, information: Mapping[str, np.ndarray], tasks: Sequence[str], levels: Sequence[int]
) -> Figure:
    """Entropy, and on a colour scale of their own the kinds of information, in bits: tasks x levels, all of them."""
    panels = {"entropy of the weights": entropies, **information}
    most = max(values.max() for values in information.values()) or 1
    figure = Figure(
        figsize=(1.4 + (0.7 + 0.65 * len(levels)) * len(panels), 1.3 + 0.4 * len(tasks)), dpi=100, layout="constrained"
    )
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        text = [[f"{value:.3f}" for value in row] for row in values]
        largest = most if title in information else values.max()
        heat_map(axis, values, text, tasks, [f"block {level}" for level in levels], title, limits=(0, largest))
    figure.supxlabel("bits", fontsize=8)
    return figure


def history_figure(history: History, training: History, sources: Sequence[str]) -> Figure:
    """Mean weights over the steps of the run: a row per task, a column per level, a colour per source.

    Dots are of the validation set, lines of training batches; of a run without these, lines join the dots.
    """
    tasks, levels = list(history), list(next(iter(history.values())))
    figure = Figure(figsize=(1 + 2.1 * len(levels), 0.8 + 1.3 * len(tasks)), dpi=100, layout="constrained")
    axes = figure.subplots(len(tasks), len(levels), squeeze=False, sharex=True, sharey=True)
    for row, task in enumerate(tasks):
        for column, level in enumerate(levels):
            axis = axes[row, column]
            for number, source in enumerate(sources):
                batches = training.get(task, {}).get(level, {}).get(source)
                if batches:
                    axis.plot(*zip(*batches, strict=True), linewidth=0.8, color=f"C{number}")
                if series := history[task].get(level, {}).get(source):
                    style = "o" if batches else "o-"
                    axis.plot(*zip(*series, strict=True), style, markersize=3, color=f"C{number}", label=source)
            axis.axhline(1 / len(sources), color="0.8", linewidth=0.8, zorder=0)  # all sources alike
            axis.set_ylim(0, 1)
            axis.tick_params(labelsize=7)
            if row == 0:
                axis.set_title(f"block {level}", fontsize=9)
            if row == len(tasks) - 1:
                axis.set_xlabel("step", fontsize=8)
        axes[row, 0].set_ylabel(task, fontsize=8)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(sources), fontsize=8)
    return figure


def knock_out_figure(
    weights: np.ndarray, changes: np.ndarray, tasks: Sequence[str], units: Sequence[str], sources: Sequence[str]
) -> Figure:
    """Mean weight of each source beside what its knock-out does to the headline metric: both (tasks, S).

    The colours of the changes are scaled task by task, whose units differ.
    """
    figure = Figure(figsize=(2.2 + 1.5 * len(sources), 1.5 + 0.45 * len(tasks)), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    text = [[f"{value:.2f}" for value in row] for row in weights]
    heat_map(left, weights, text, tasks, sources, "mean weight, all levels", limits=(0, 1))
    largest = np.abs(changes).max(axis=1, keepdims=True)
    text = [[f"{value:+.2f}" for value in row] for row in changes]
    rows = [f"{task} [{unit}]" for task, unit in zip(tasks, units, strict=True)]
    scaled = changes / np.where(largest == 0, 1, largest)
    heat_map(right, scaled, text, rows, sources, "change without the source\n(below 0: worse)", (-1, 1), "RdBu")
    return figure


def leaning_figure(
    chosen: Mapping[str, Sequence[tuple[Tensor, str]]], titles: Mapping[str, str], heading: str
) -> Figure:
    """A contact sheet: {source: [(image (3, H, W) in [0, 1], caption), ...]}, a row for each."""
    columns = max(map(len, chosen.values()))
    figure = Figure(figsize=(CELL * (columns + 0.9), CELL * 1.15 * len(chosen) + 0.4), dpi=100, layout="constrained")
    figure.suptitle(heading, fontsize=9)
    axes = figure.subplots(len(chosen), columns, squeeze=False)
    for row, (source, images) in zip(axes, chosen.items(), strict=True):
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
        for axis, (image, caption) in zip(row, images, strict=False):
            axis.imshow(image.permute(1, 2, 0).numpy())
            axis.set_xlabel(caption, fontsize=6)
        row[0].set_ylabel(titles[source], fontsize=8, rotation=0, ha="right", va="center")
    return figure


def token_figure(
    images: Tensor, weights: Sequence[Tensor], sources: Sequence[str], levels: Sequence[int], heading: str
) -> Figure:
    """A per-token router's weights over the images (N, 3, H, W): a row per image, columns are levels and sources.

    Args:
        weights: per level (N, S, h, w).
    """
    rows, columns = len(images), 1 + len(levels) * len(sources)
    figure = Figure(figsize=(CELL * columns * 0.8, CELL * 0.8 * rows + 0.8), dpi=100, layout="constrained")
    figure.suptitle(heading, fontsize=10)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    height, width = images.shape[-2:]
    for row, image in enumerate(images):
        picture = image.permute(1, 2, 0).numpy()
        axes[row, 0].imshow(picture)
        for column in range(1, columns):
            level, source = divmod(column - 1, len(sources))
            axis = axes[row, column]
            axis.imshow(picture.mean(axis=-1), cmap="gray", vmin=0, vmax=1)
            heat = axis.imshow(
                weights[level][row, source].numpy(), cmap="viridis", vmin=0, vmax=1, alpha=0.65,
                extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest",
            )  # fmt: skip
            if row == 0:
                axis.set_title(f"block {levels[level]}\n{sources[source]}", fontsize=7)
    figure.colorbar(heat, ax=axes, label="weight", shrink=0.8)
    return figure

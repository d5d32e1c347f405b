"""Pictures of routers: weights, information, history, knock-outs, the images that lean to a source, weights per token.

Legend: N images, S sources, H,W image, h,w token grid.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from sak.plotting import WEIGHTS, colour_bar, heat_map, weight_bar, weight_map
from sak.research.routing.history import History
from sak.research.routing.statistics import RouterStatistics
from sak.tasks import Task

CELL = 1.25  # inches
SMALLEST_CHANGE = 1.0  # percent, at the ends of the colours of knock-outs: below it there is little to see
ABREAST = 2  # images whose token weights stand side by side
Routers = Mapping[str, Mapping[int, RouterStatistics]]  # {task: {block: its router's}}


def weights_figure(routers: Routers, sources: Sequence[str]) -> Figure:
    """Mean weight ± spread over images: tasks x sources, a panel per level."""
    tasks, levels = list(routers), list(next(iter(routers.values())))
    figure = Figure(
        figsize=(1.8 + 0.55 * len(sources) * len(levels), 1.1 + 0.45 * len(tasks)), dpi=100, layout="constrained"
    )
    axes = figure.subplots(1, len(levels), squeeze=False, sharey=True)[0]
    for axis, level in zip(axes, levels, strict=True):
        mean = np.array([routers[task][level].mean.numpy() for task in tasks])
        spread = np.array([routers[task][level].spread.numpy() for task in tasks])
        text = [[f"{m:.2f}\n±{s:.2f}" for m, s in zip(*rows, strict=True)] for rows in zip(mean, spread, strict=True)]
        heat = weight_map(axis, mean, text, tasks, sources, f"block {level}")
    weight_bar(figure, heat, axes, len(sources), "mean weight ± spread over images")
    return figure


def information_figure(
    entropies: np.ndarray,
    information: Mapping[str, np.ndarray],
    most: float,
    tasks: Sequence[str],
    levels: Sequence[int],
) -> Figure:
    """In bits, tasks x levels: the entropy out of all that there could be, and the kinds of information on one scale.

    Args:
        most: bits of a choice among the sources.
    """
    largest = max(values.max() for values in information.values()) or 1
    figure = Figure(
        figsize=(2.2 + (0.25 + 0.45 * len(levels)) * (1 + len(information)), 1.2 + 0.36 * len(tasks)), dpi=100,
        layout="constrained",
    )  # fmt: skip
    axes = figure.subplots(1, 1 + len(information), squeeze=False, sharey=True)[0]
    blocks = [f"block {level}" for level in levels]

    def draw(axis: Axes, values: np.ndarray, title: str, limit: float) -> AxesImage:
        text = [[f"{value:.3f}" for value in row] for row in values]
        return heat_map(axis, values, text, tasks, blocks, title, limits=(0, limit))

    entropy = draw(axes[0], entropies, "entropy of the weights", most)
    colour_bar(figure, entropy, axes[0], f"bits, of at most {most:.2f}")
    for axis, (title, values) in zip(axes[1:], information.items(), strict=True):
        heat = draw(axis, values, title, largest)
    colour_bar(figure, heat, axes[1:], "bits")
    return figure


def history_figure(history: History, training: History, sources: Sequence[str]) -> Figure:
    """Mean weights over the steps of the second stage: a row per task, a column per level, a colour per source.

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
            even = axis.axhline(1 / len(sources), color="0.6", linewidth=0.8, linestyle="--", zorder=0)
            axis.set_ylim(0, 1)
            axis.tick_params(labelsize=7)
            if row == 0:
                axis.set_title(f"block {level}", fontsize=9)
            if row == len(tasks) - 1:
                axis.set_xlabel("step of the second stage", fontsize=8)
        axes[row, 0].set_ylabel(task, fontsize=8)
    figure.supylabel(
        "mean weight" + (" (dots: validation set, lines: training batches)" if training else ""), fontsize=8
    )
    handles, labels = axes[0, 0].get_legend_handles_labels()
    handles, labels = [*handles, even], [*labels, f"1/{len(sources)}: all alike"]
    figure.legend(handles, labels, loc="outside upper center", ncols=len(handles), fontsize=8)
    return figure


def knock_out_figure(
    weights: np.ndarray,
    changes: np.ndarray,
    relative: np.ndarray,
    tasks: Mapping[str, Task],
    sources: Sequence[str],
) -> Figure:
    """Mean weight of each source beside what its knock-out does to the headline metric, all (tasks, S).

    Args:
        changes: in the metrics' units, below 0 where it becomes worse.
        relative: the same in percent of the metric with all sources, which is what the colours show, since units
            differ; not a number where that metric is 0.
    """
    figure = Figure(figsize=(3.4 + 1.5 * len(sources), 1.3 + 0.45 * len(tasks)), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    text = [[f"{value:.2f}" for value in row] for row in weights]
    heat = weight_map(left, weights, text, list(tasks), sources, "mean weight, all levels")
    weight_bar(figure, heat, left, len(sources), "mean weight")
    text = [
        [_change(change, share, task.digits) for change, share in zip(*rows, strict=True)]
        for task, *rows in zip(tasks.values(), changes, relative, strict=True)
    ]
    rows = [f"{name}, {task.units}" for name, task in tasks.items()]
    title = "change without the source\n(below 0: worse)"
    most = max(SMALLEST_CHANGE, np.abs(relative[np.isfinite(relative)]).max(initial=0))
    heat = heat_map(right, relative, text, rows, sources, title, (-most, most), "RdBu")
    colour_bar(figure, heat, right, "% of the metric with all sources")
    return figure


def _change(change: float, relative: float, digits: int) -> str:
    shown = f"{round(change, digits) + 0:+.{digits}f}"  # + 0: no minus before a zero
    return f"{shown}\n({round(relative, 1) + 0:+.1f} %)" if np.isfinite(relative) else shown


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
    """A per-token router's weights over the images (N, 3, H, W): a block per image, its rows levels, columns sources.

    Args:
        weights: per level (N, S, h, w).
    """
    abreast, breadth = min(ABREAST, len(images)), 1 + len(sources)
    lines = -(-len(images) // abreast)
    figure = Figure(
        figsize=(0.9 * breadth * abreast + 0.9, 0.9 * len(levels) * lines + 0.8), dpi=100, layout="constrained"
    )
    figure.suptitle(heading, fontsize=10)
    axes = figure.subplots(lines * len(levels), abreast * breadth, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    for number, image in enumerate(images):
        line, place = divmod(number, abreast)
        block = axes[line * len(levels) : (line + 1) * len(levels), place * breadth : (place + 1) * breadth]
        block[0, 0].imshow(image.permute(1, 2, 0).numpy())
        for row, (level, maps) in enumerate(zip(levels, weights, strict=True)):
            block[row, 1].set_ylabel(f"block {level}", fontsize=7)
            for column, source in enumerate(sources, start=1):
                heat = block[row, column].imshow(
                    maps[number, column - 1].numpy(), cmap=WEIGHTS, vmin=2 / len(sources) - 1, vmax=1,
                    interpolation="nearest",
                )  # fmt: skip
                if row == 0:
                    block[row, column].set_title(source, fontsize=7)
    weight_bar(figure, heat, axes, len(sources), "weight")
    return figure

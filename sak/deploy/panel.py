"""One picture's predictions as a figure."""

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from sak.data.transforms import resize_nearest
from sak.evaluation.figures import LINE, SIZE, explain
from sak.tasks import Task

CELL = 2.4  # inches, the longer side of a picture
SHOWN = 480  # pixels of that side
OPACITY = 0.55  # of classes over the picture
BARS = 1.0  # inches


def overlay(image: np.ndarray, colours: np.ndarray, opacity: float = OPACITY) -> np.ndarray:
    """Colours over the picture's brightness, both uint8 (H, W, 3)."""
    grey = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    return np.rint(opacity * colours + (1 - opacity) * grey).astype(np.uint8)


def draw(
    image: np.ndarray,
    tasks: Mapping[str, Task],
    maps: Mapping[str, np.ndarray],
    routing: Mapping[str, np.ndarray],
    sources: Sequence[str],
    levels: Sequence[int],
) -> Figure:
    """The picture, then each task: its map, what the colours mean, and its router weights; see `Prediction`."""
    image, maps = shrunk(image, maps)
    height, width = (CELL * side / max(image.shape[:2]) for side in image.shape[:2])
    column = max(width, 1.5)  # a legend needs that
    abreast = max(1, round(1.1 * column))
    keys = {name: tasks[name].key([values]) for name, values in maps.items()}
    below = max(LINE * (math.ceil(len(key) / abreast) + 3 * bool(tasks[name].scale)) for name, key in keys.items())
    bars = BARS if routing else 0.0
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    figure = Figure((column * (1 + len(maps)), height + below + bars + 0.3), dpi=100, layout=layout)
    rows = [height, below] + ([bars] if routing else [])
    grid = figure.add_gridspec(len(rows), 1 + len(maps), height_ratios=rows)
    _show(figure.add_subplot(grid[0, 0]), image, "image")
    for place, (name, values) in enumerate(maps.items(), start=1):
        task = tasks[name]
        colours = task.colour(values)
        picture = overlay(image, colours) if task.classes else colours
        _show(figure.add_subplot(grid[0, place]), picture, name)
        explain(figure.add_subplot(grid[1, place]), task, keys[name], abreast)
        if name in routing:
            axis = figure.add_subplot(grid[2, place])
            weight_bars(axis, routing[name], sources, levels)
            if place == 1:
                axis.set_ylabel("router weight", fontsize=SIZE)
                explanation = figure.add_subplot(grid[2, 0])
                explanation.axis("off")
                explanation.legend(*axis.get_legend_handles_labels(), loc="center right", fontsize=SIZE, frameon=False)
    return figure


def shrunk(image: np.ndarray, maps: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """To what a figure shows, uint8; maps by their nearest values, since classes do not blend."""
    if image.dtype != np.uint8:
        image = np.rint(255 * image.clip(0, 1)).astype(np.uint8)
    share = SHOWN / max(image.shape[:2])
    if share >= 1:
        return image, dict(maps)
    size = (max(1, round(share * image.shape[0])), max(1, round(share * image.shape[1])))
    smaller = {}
    for name, values in maps.items():
        last = values if values.ndim == 2 else values.transpose(1, 2, 0)
        last = resize_nearest(last, size)
        smaller[name] = last if values.ndim == 2 else last.transpose(2, 0, 1)
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), smaller


def _show(axis: Axes, picture: np.ndarray, title: str) -> None:
    axis.imshow(picture, interpolation="nearest")
    axis.set_title(title, fontsize=8)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


def weight_bars(axis: Axes, weights: np.ndarray, sources: Sequence[str], levels: Sequence[int]) -> None:
    """Weights (L, S), which sum to 1, stacked: a bar for each level."""
    bottom = np.zeros(len(levels))
    for number, source in enumerate(sources):
        axis.bar(range(len(levels)), weights[:, number], bottom=bottom, width=0.8, label=source, color=f"C{number}")
        bottom += weights[:, number]
    axis.set_xticks(range(len(levels)), [f"block {level}" for level in levels], fontsize=SIZE - 1)
    axis.set_ylim(0, 1)
    axis.set_yticks([0, 0.5, 1])
    axis.tick_params(labelsize=SIZE - 1, length=2, pad=1)
    axis.spines[["top", "right"]].set_visible(False)

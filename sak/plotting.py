"""What the figures of this package share: pixels, files, heat maps whose cells say their values, and their scales.

Legend: S sources that a router mixes.
"""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

from sak.files import replacing

PAGE = 1024  # pixels: about as wide as a page of documentation
GAP = 12  # pixels between pictures that stand side by side
UNKNOWN = "#e0e0e0"  # of cells without a value
WEIGHTS = "PuOr_r"  # of router weights, 1/S white


def pixels(figure: Figure) -> np.ndarray:
    """uint8 (height, width, 3), as TensorBoard takes a picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def save(picture: Figure | np.ndarray, path: Path) -> None:
    """A figure, or the pixels of one that is drawn already, as a PNG file that appears whole or not at all.

    With all of its colours: a palette would dither photographs and move the colours of a scale.
    """
    drawn = pixels(picture) if isinstance(picture, Figure) else picture
    with replacing(path) as partial:
        Image.fromarray(drawn).save(partial, format="png", optimize=True)


def copy_small(source: Path, target: Path) -> None:
    """Copy a picture, with a palette of 256 colours where that is smaller: a repository keeps its figures small."""
    with Image.open(source) as picture:
        # Pillow's default merges colours that few pixels have, as those of a legend, with others.
        palette = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    with replacing(target) as partial:
        palette.save(partial, format="PNG", optimize=True)
        if partial.stat().st_size > source.stat().st_size:
            shutil.copyfile(source, partial)


def tiled(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures (height, width, 3) on white, in lines of about equal numbers that are no wider than `PAGE`."""
    width = GAP + max(picture.shape[1] for picture in pictures)
    lines = math.ceil(len(pictures) / max(1, (PAGE + GAP) // width))
    length = math.ceil(len(pictures) / lines)
    rows = []
    for start in range(0, len(pictures), length):
        line = pictures[start : start + length]
        row = np.full((max(picture.shape[0] for picture in line), width * length - GAP, 3), 255, np.uint8)
        for place, picture in enumerate(line):
            row[: picture.shape[0], place * width : place * width + picture.shape[1]] = picture
        rows.append(row)
    return np.concatenate(rows)


def heat_map(
    axis: Axes,
    values: np.ndarray,
    text: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    limits: tuple[float, float],
    colours: str = "viridis",
    rotation: float = 30,
    size: float = 8,
) -> AxesImage:
    """Draw ``values`` (rows, columns) as cells that say their ``text``; returns matplotlib's image.

    Cells that are not a number are grey.

    Args:
        limits: the values at the ends of the colours.
        rotation: of the columns' names, in degrees.
        size: of the names in points; the text is a little smaller, the title a little larger.
    """
    heat = axis.imshow(values, vmin=limits[0], vmax=limits[1], cmap=colours, aspect="auto")
    axis.set_facecolor(UNKNOWN)
    axis.set_title(title, fontsize=size + 1)
    axis.set_xticks(range(len(columns)), columns, fontsize=size, rotation=rotation)
    axis.set_yticks(range(len(rows)), rows, fontsize=size)
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = heat.to_rgba(value)
        dark = np.isfinite(value) and 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        colour = "white" if dark else "black"
        axis.text(column, row, text[row][column], ha="center", va="center", fontsize=size - 1, color=colour)
    return heat


def weight_map(
    axis: Axes,
    weights: np.ndarray,
    text: Sequence[Sequence[str]],
    rows: Sequence[str],
    sources: Sequence[str],
    title: str,
) -> AxesImage:
    """A heat map of router weights (rows, S): two colours, equally strong as far below and above 1/S."""
    return heat_map(axis, weights, text, rows, sources, title, limits=(2 / len(sources) - 1, 1), colours=WEIGHTS)


def colour_bar(figure: Figure, heat: AxesImage, axes: Axes | np.ndarray, label: str, share: float = 1) -> Colorbar:
    """The scale of an image's colours beside the axes that share it, along a share of their height.

    Args:
        label: what the colours are, and in which unit.
    """
    bar = figure.colorbar(heat, ax=axes, shrink=share)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return bar


def weight_bar(figure: Figure, heat: AxesImage, axes: Axes | np.ndarray, sources: int, label: str) -> None:
    """The scale of weights beside the axes, from 0 to 1, on which 1/S is marked: that of sources that are all alike."""
    even = 1 / sources
    ticks = {0: "0", even: f"1/{sources}", **{t: f"{t:g}" for t in (0.5, 1) if t - even > 0.1}}
    bar = colour_bar(figure, heat, axes, f"{label} (1/{sources}: all alike)")
    bar.ax.set_ylim(0, 1)  # the colours are symmetric about 1/S, and so begin below 0
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
    bar.ax.axhline(even, color="black", linewidth=0.8)

"""What the figures of this package share: pixels, files, and heat maps whose cells say their values."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from sak.files import replacing

CELL = 1.6  # inches: an image in a panel


def pixels(figure: Figure) -> np.ndarray:
    """uint8 (height, width, 3), as TensorBoard takes a picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def save(figure: Figure, path: Path) -> None:
    """As a PNG file that appears whole or not at all."""
    with replacing(path) as partial:
        figure.savefig(partial, format="png")


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

    Args:
        limits: the values at the ends of the colours.
        rotation: of the columns' names, in degrees.
        size: of the names in points; the text is a little smaller, the title a little larger.
    """
    heat = axis.imshow(values, vmin=limits[0], vmax=limits[1], cmap=colours, aspect="auto")
    axis.set_title(title, fontsize=size + 1)
    axis.set_xticks(range(len(columns)), columns, fontsize=size, rotation=rotation)
    axis.set_yticks(range(len(rows)), rows, fontsize=size)
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = heat.to_rgba(value)
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        colour = "white" if dark else "black"
        axis.text(column, row, text[row][column], ha="center", va="center", fontsize=size - 1, color=colour)
    return heat

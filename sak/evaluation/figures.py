"""Pictures of a run: what the student predicts, and how its routers mix.

Shapes: H,W image, S sources.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from sak.student import StudentOutput
from sak.tasks import Task

CELL = 1.6  # inches


def pixels(figure: Figure) -> np.ndarray:
    """uint8 (height, width, 3), as TensorBoard takes a picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def prediction_panel(batch: Mapping[str, Tensor], output: StudentOutput, tasks: Mapping[str, Task]) -> Figure:
    """One row per image: the image, then truth and prediction of each task."""
    images = batch["image"].cpu()
    columns = 1 + 2 * len(tasks)
    figure = Figure(figsize=(CELL * columns, CELL * len(images) + 0.3), layout="constrained")
    axes = figure.subplots(len(images), columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, image in enumerate(images):
        axes[row, 0].imshow(image.permute(1, 2, 0).numpy())
    axes[0, 0].set_title("image", fontsize=8)
    for column, (name, task) in enumerate(tasks.items()):
        predictions = task.predict(output.predictions[name].float()).cpu().numpy()
        labels = batch[name].cpu().numpy()
        for row in range(len(images)):
            axes[row, 1 + 2 * column].imshow(task.colour(labels[row]))
            axes[row, 2 + 2 * column].imshow(task.colour(predictions[row]))
        axes[0, 1 + 2 * column].set_title(f"{name}: truth", fontsize=8)
        axes[0, 2 + 2 * column].set_title("prediction", fontsize=8)
    return figure


def routing_heat_map(routing: Mapping[str, Sequence[Tensor]], sources: Sequence[str], levels: Sequence[int]) -> Figure:
    """Mean router weights over images: tasks x sources, a panel per level.

    Args:
        routing: {task: [per level (images, S)]}.
    """
    tasks = list(routing)
    figure = Figure(figsize=(1.2 + 2.4 * len(levels), 1.3 + 0.4 * len(tasks)), layout="constrained")
    axes = figure.subplots(1, len(levels), squeeze=False, sharey=True)[0]
    means = np.array([[weights.mean(0).numpy() for weights in routing[task]] for task in tasks])
    for level, axis in enumerate(axes):
        heat = axis.imshow(means[:, level], vmin=0, vmax=1, cmap="viridis", aspect="auto")
        axis.set_title(f"block {levels[level]}", fontsize=9)
        axis.set_xticks(range(len(sources)), sources, fontsize=8, rotation=30)
        axis.set_yticks(range(len(tasks)), tasks, fontsize=8)
        for (row, column), value in np.ndenumerate(means[:, level]):
            colour = "black" if value > 0.6 else "white"
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(heat, ax=axes, label="mean weight")
    return figure


def cells(
    axis: Axes,
    values: np.ndarray,
    text: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    limits: tuple[float, float],
    colours: str = "viridis",
) -> AxesImage:
    """Draw a heat map of ``values`` (rows, columns) whose cells say their ``text``; returns matplotlib's image."""
    heat = axis.imshow(values, vmin=limits[0], vmax=limits[1], cmap=colours, aspect="auto")
    axis.set_title(title, fontsize=9)
    axis.set_xticks(range(len(columns)), columns, fontsize=8, rotation=30)
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = heat.to_rgba(value)
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        axis.text(
            column, row, text[row][column], ha="center", va="center", fontsize=7, color="white" if dark else "black"
        )
    return heat

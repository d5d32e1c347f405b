"""Pictures of a run: what the student predicts, and how its routers mix.

Shapes: H,W image, S sources.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from torch import Tensor

from sak.plotting import weight_bar, weight_map
from sak.student import StudentOutput
from sak.tasks import Task

SIZE = 6.5  # points, of what explains the colours
LONGEST = 16  # characters of an image's name that stand beside it
LINE = 0.15  # inches, of a line of it


def prediction_panel(
    batch: Mapping[str, Tensor], output: StudentOutput, tasks: Mapping[str, Task], cell: float = 1.1
) -> Figure:
    """One row per image: the image, then truth and prediction of each task; below each task what its colours mean.

    Args:
        batch: of samples; their names, if they have any, stand beside the rows.
        cell: width of a picture in inches.
    """
    images = batch["image"].cpu()
    count, columns, abreast = len(images), 1 + 2 * len(tasks), max(1, round(2 * cell))
    height = cell * images.shape[2] / images.shape[3]
    maps = {name: _maps(batch, output, task) for name, task in tasks.items()}
    keys = {name: task.key(maps[name]["truth"] + maps[name]["prediction"]) for name, task in tasks.items()}
    # Lines of patches, and three for a bar.
    below = max(LINE * (math.ceil(len(key) / abreast) + 3 * bool(tasks[name].scale)) for name, key in keys.items())
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(figsize=(cell * columns, height * count + 0.4 + below), dpi=100, layout=layout)
    grid = figure.add_gridspec(count + 1, columns, height_ratios=[*[height] * count, below])
    axes = [[figure.add_subplot(grid[row, column]) for column in range(columns)] for row in range(count)]
    for axis in (axis for row in axes for axis in row):
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    for row, (image, name) in enumerate(zip(images, batch.get("name", [""] * count), strict=True)):
        axes[row][0].imshow(image.permute(1, 2, 0).numpy())
        axes[row][0].set_ylabel(name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}", fontsize=SIZE)
    axes[0][0].set_title("image", fontsize=8)
    for number, (name, task) in enumerate(tasks.items()):
        # Between the colours of two classes or directions there is none.
        how = "auto" if task.scale else "nearest"
        for column, (kind, pictures) in enumerate(maps[name].items(), start=1 + 2 * number):
            axes[0][column].set_title(f"{name}\n{kind}", fontsize=8)
            for row, picture in enumerate(pictures):
                axes[row][column].imshow(task.colour(picture), interpolation=how)
        explain(figure.add_subplot(grid[count, 1 + 2 * number : 3 + 2 * number]), task, keys[name], abreast)
    return figure


def _maps(batch: Mapping[str, Tensor], output: StudentOutput, task: Task) -> dict[str, list[np.ndarray]]:
    """Of the images: {"truth": labels, "prediction": predictions}."""
    predictions = task.predict(output.predictions[task.name].float())
    return {"truth": list(batch[task.name].cpu().numpy()), "prediction": list(predictions.cpu().numpy())}


def explain(axis: Axes, task: Task, key: Mapping[str, np.ndarray], abreast: int) -> None:
    """The scale of a task's pictures, and a patch of every other colour, so many of them abreast."""
    axis.axis("off")
    if task.scale:
        scale, figure = task.scale, axis.figure
        bar = axis.inset_axes((0.05, 0.75, 0.9, 0.2))
        numbers = ScalarMappable(Normalize(scale.low, scale.high), scale.colours)
        figure.colorbar(numbers, cax=bar, orientation="horizontal")
        bar.set_xlabel(scale.label, fontsize=SIZE, labelpad=1)
        bar.tick_params(labelsize=SIZE, pad=1)
    patches = [
        Patch(facecolor=to_hex(tuple(rgb / 255)), edgecolor="0.5", lw=0.5, label=what) for what, rgb in key.items()
    ]
    axis.legend(
        handles=patches, loc="lower left" if task.scale else "upper left", ncols=abreast, fontsize=SIZE, frameon=False,
        borderpad=0, borderaxespad=0, handlelength=1, handletextpad=0.4, columnspacing=0.8, labelspacing=0.2,
    )  # fmt: skip


def routing_heat_map(routing: Mapping[str, Sequence[Tensor]], sources: Sequence[str], levels: Sequence[int]) -> Figure:
    """Mean router weights over images: tasks x sources, a panel per level.

    Args:
        routing: {task: [per level (images, S)]}.
    """
    tasks = list(routing)
    figure = Figure(figsize=(1.4 + 2.1 * len(levels), 0.9 + 0.36 * len(tasks)), dpi=100, layout="constrained")
    axes = figure.subplots(1, len(levels), squeeze=False, sharey=True)[0]
    for level, axis in enumerate(axes):
        means = np.array([routing[task][level].mean(0).numpy() for task in tasks])
        text = [[f"{value:.2f}" for value in row] for row in means]
        heat = weight_map(axis, means, text, tasks, sources, f"block {levels[level]}")
    weight_bar(figure, heat, axes, len(sources), "mean weight")
    return figure

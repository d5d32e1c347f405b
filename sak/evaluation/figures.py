"""Pictures of a run: what the student predicts, and how its routers mix.

Shapes: H,W image, S sources.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from sak.plotting import CELL, heat_map
from sak.student import StudentOutput
from sak.tasks import Task


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
    for level, axis in enumerate(axes):
        means = np.array([routing[task][level].mean(0).numpy() for task in tasks])
        text = [[f"{value:.2f}" for value in row] for row in means]
        heat = heat_map(axis, means, text, tasks, sources, f"block {levels[level]}", limits=(0, 1))
    figure.colorbar(heat, ax=axes, label="mean weight")
    return figure

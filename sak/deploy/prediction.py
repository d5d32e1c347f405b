"""What a student predicts for one picture: its maps, what they stand for, and how its routers mixed.

Shapes: H,W picture, L levels, S sources.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from sak.deploy.panel import draw
from sak.files import replacing
from sak.tasks import Task

MILLIMETRES = 1000  # of depth's PNG, in a metre


@dataclass(frozen=True)
class Prediction(Mapping[str, np.ndarray]):
    """``prediction["semseg"]``: the task's map at the picture's size.

    semseg and human_parts are classes, uint8 (H, W); saliency and edge probabilities, depth metres, float32 (H, W);
    normals unit vectors, float32 (H, W, 3): x to the right, y up, z towards the viewer.

    Attributes:
        image: (H, W, 3), uint8, or float32 in [0, 1] where floats were given.
        tasks: {task: what is known of it}.
        maps: {task: as ``Task.predict`` has it, channels first}.
        routing: {task: (L, S) router weights, the mean over windows}; empty where the student has no routers.
        sources: what the routers mix.
        levels: the stem's blocks at which they do.
    """

    image: np.ndarray
    tasks: Mapping[str, Task]
    maps: Mapping[str, np.ndarray]
    routing: Mapping[str, np.ndarray]
    sources: Sequence[str]
    levels: Sequence[int]

    def __getitem__(self, task: str) -> np.ndarray:
        values = self.maps[task]
        if values.ndim == 2:
            return values
        return values[0] if len(values) == 1 else values.transpose(1, 2, 0)

    def __iter__(self) -> Iterator[str]:
        return iter(self.maps)

    def __len__(self) -> int:
        return len(self.maps)

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        return f"Prediction({', '.join(self.maps)} of a picture of {height}x{width})"

    @property
    def classes(self) -> dict[str, list[str]]:
        """{task: names of its classes, in the order of their labels}, of the tasks that have classes."""
        return {name: list(task.classes) for name, task in self.tasks.items() if task.classes}

    def panel(self) -> Figure:
        """The picture, every task's map over it or beside it with what its colours mean, and the router weights."""
        return draw(self.image, self.tasks, self.maps, self.routing, self.sources, self.levels)

    def save(self, path: str | Path, task: str) -> None:
        """Write a task's map as a PNG file in the field's format.

        Classes: their indices, with a palette. Probabilities: 255 p. Normals: 255 (n + 1) / 2 as RGB. Depth: 16 bits,
        millimetres, 65535 where it is farther.
        """
        kind = self.tasks[task]
        values = kind.to_file(self.maps[task])
        if values.dtype == np.float32:
            values = np.rint(values * MILLIMETRES).clip(0, 65535).astype(np.uint16)
        image = Image.fromarray(values)
        if values.ndim == 2 and kind.scale is None:
            image = Image.fromarray(values, "P")
            image.putpalette(kind.colour(np.arange(kind.channels)[None])[0].tobytes())
        with replacing(path) as partial:
            image.save(partial, format="png")

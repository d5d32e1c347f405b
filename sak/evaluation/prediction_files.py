"""Predictions as files, one per task and image, for others' tools to evaluate."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from sak.data.transforms import margins
from sak.files import put_in_place
from sak.tasks import Task


class MapWriter:
    """Writes ``<directory>/<task>/<image>.png``, depth as ``.npy``, without the padding; see ``Task.to_file``.

    All processes write beside, and `finish`, in one of them, shows a task's maps when there is one for every image.
    """

    def __init__(self, directory: Path, tasks: Mapping[str, Task]):
        self.directory, self.tasks = directory, tasks
        self.partial = directory / ".maps.partial"

    def start(self) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)
        for name in self.tasks:
            (self.partial / name).mkdir(parents=True)

    def __call__(self, name: str, predictions: Tensor, batch: Mapping) -> None:
        """One task's predictions of a batch, as ``evaluate`` hands them over."""
        canvas = tuple(batch["image"].shape[-2:])
        sizes = zip(*(side.tolist() for side in batch["size"]), strict=True)
        for image, (height, width), prediction in zip(batch["name"], sizes, predictions.cpu().numpy(), strict=True):
            top, left = margins((height, width), canvas)
            cropped = prediction[..., top : top + height, left : left + width]
            array, path = self.tasks[name].to_file(cropped), self.partial / name / image
            path.parent.mkdir(parents=True, exist_ok=True)  # own data may have folders below
            if array.dtype == np.uint8:
                Image.fromarray(array).save(f"{path}.png", compress_level=1)
            else:
                np.save(f"{path}.npy", array)

    def finish(self) -> None:
        for name in self.tasks:
            put_in_place(self.partial / name, self.directory / name)
        self.partial.rmdir()

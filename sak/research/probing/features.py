"""The features of a frozen model on disk: computed once, read by the probe of every task.

Legend: N images, D width of a level, h, w its token grid.
"""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from sak.data import loading
from sak.errors import UserError
from sak.evaluation.evaluate import to_device
from sak.files import read_json, write_json
from sak.progress import progress_bar

FLUSH_EVERY = 32  # batches: what a killed extraction loses at most


class Features:
    """Maps of a frozen model, one float16 file per split, memory-mapped; an image's levels lie behind each other.

    Half precision halves the space and costs nothing that a probe could notice: it is finer than what a teacher
    computed in bfloat16.

    Args:
        directory: where the files are.
        shapes: (D, h, w) of each level.
        counts: {split: N}.
    """

    def __init__(self, directory: Path, shapes: list[tuple[int, int, int]], counts: Mapping[str, int]):
        self.directory, self.shapes, self.counts = directory, shapes, dict(counts)
        self.values = sum(math.prod(shape) for shape in shapes)  # of one image

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return 2 * self.values * sum(self.counts.values())

    def maps(self, split: str, index: int) -> list[Tensor]:
        """One float16 (D, h, w) per level of one image."""
        row = np.array(self._open(split)[index])  # a copy: the file is opened anew by each process that loads
        levels = torch.from_numpy(row).split([math.prod(shape) for shape in self.shapes])
        return [level.view(shape) for level, shape in zip(levels, self.shapes, strict=True)]

    def vectors(self, split: str) -> Tensor:
        """All values of all images as float32 (N, sum of D·h·w), in memory."""
        return torch.from_numpy(np.array(self._open(split), np.float32))

    def extract(
        self,
        model: nn.Module,
        images: Mapping[str, loading.Samples],
        batch_size: int,
        workers: int,
        accelerator: Accelerator,
        title: str,
    ) -> None:
        """Compute what is missing; a stopped extraction goes on where it was.

        Args:
            model: images (B, 3, H, W) in [0, 1] -> levels.
            images: {split: samples with an "image"}.

        Raises:
            UserError: the disk is too small.
            FloatingPointError: a feature is no number of half precision.
        """
        done = self._done()
        if done == self.counts:
            return
        missing = self.size if not any(done.values()) else 0
        self.directory.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.directory).free
        tqdm.write(f"features of {title}: {_bytes(self.size)} in {self.directory}")
        if missing > free:
            raise UserError(
                f"the features of {title} take {_bytes(missing)}, but only {_bytes(free)} are free in "
                f"{self.directory}; choose another output, fewer levels, or a smaller input_size"
            )
        total, before = sum(self.counts.values()), sum(done.values())
        with progress_bar(total, f"features of {title}", done=before, leave=False) as progress:
            for split, dataset in images.items():
                self._extract_split(model, split, dataset, done, batch_size, workers, accelerator, progress)

    def delete(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def _extract_split(self, model, split, dataset, done, batch_size, workers, accelerator, progress) -> None:
        if done[split] == self.counts[split]:
            return
        file = self._open(split, "r+" if done[split] else "w+")
        starts = range(done[split], self.counts[split], batch_size)
        batches = [range(start, min(start + batch_size, self.counts[split])) for start in starts]
        try:
            for number, batch in enumerate(loading.load(dataset, batches, workers), start=1):
                with torch.no_grad(), accelerator.autocast():
                    levels = model(to_device(batch, accelerator.device)["image"])
                rows = torch.cat([level.flatten(1) for level in levels], dim=1).half()
                if not rows.isfinite().all():
                    raise FloatingPointError(f"{progress.desc} are beyond half precision, or not numbers")
                file[done[split] : done[split] + len(rows)] = rows.cpu().numpy()
                done[split] += len(rows)
                progress.update(len(rows))
                if number % FLUSH_EVERY == 0:
                    self._note(file, done)
        finally:
            self._note(file, done)

    def _note(self, file: np.memmap, done: Mapping[str, int]) -> None:
        file.flush()  # first the rows, then that they are there
        write_json(self._progress_file, done)

    def _done(self) -> dict[str, int]:
        nothing = dict.fromkeys(self.counts, 0)
        return read_json(self._progress_file, list(nothing)) if self._progress_file.is_file() else nothing

    @property
    def _progress_file(self) -> Path:
        return self.directory / "done.json"

    def _open(self, split: str, mode: Literal["r", "r+", "w+"] = "r") -> np.memmap:
        path = self.directory / f"{split}.float16"
        return np.memmap(path, np.float16, mode, shape=(self.counts[split], self.values))


def _bytes(count: int) -> str:
    return tqdm.format_sizeof(count, "B")


class Probed(Dataset):
    """The labels of a data set, with a model's features in place of the images."""

    def __init__(self, features: Features, split: str, labelled: loading.Samples):
        self.features, self.split, self.labelled = features, split, labelled

    def set_epoch(self, epoch: int) -> None:
        """Every epoch sees the same features."""

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, index: int) -> dict:
        sample = {key: value for key, value in self.labelled[index].items() if key != "image"}
        return {**sample, "image": self.features.maps(self.split, index)}

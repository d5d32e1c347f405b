"""The baseline of every metric: the best that one and the same prediction for every pixel of every image can reach."""

import functools
import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import PIL
import skimage
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.utils.data import Dataset

import sak
from sak.data import loading
from sak.data.archive import Archive
from sak.data.faulty_images import Skips
from sak.data.reading import FaultyFile
from sak.evaluation.evaluate import batches_of
from sak.files import write_json
from sak.metrics import Metrics
from sak.tasks import HIGHER, Task

KEPT = ".constants"  # the folder beside the runs
CODE = ("data", "metrics", "tasks")  # what reads the labels and measures the constants


def kept_constants(
    folder: Path,
    tasks: Mapping[str, Task],
    dataset: Archive,
    batch_size: int,
    workers: int,
    accelerator: Accelerator,
    timeout: int = loading.TIMEOUT,
    skips: Skips | None = None,
) -> Metrics:
    """`constant_predictions`, kept in the folder for all who ask the same of the same files.

    It is the same where tasks, size, files (by name, bytes and time of change), and the code that reads and measures
    are.
    """
    file = folder / f"{_fingerprint(tasks, dataset)}.json"
    kept = _read(file)
    (found,) = broadcast_object_list([kept])  # or one process would compute alone what another has just written
    if found is None:
        found = constant_predictions(tasks, dataset, batch_size, workers, accelerator, timeout, skips)
        if accelerator.is_main_process:
            write_json(file, found)
    return found


def _read(file: Path) -> Metrics | None:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # a corrupt one is as good as none
        return None


def _fingerprint(tasks: Mapping[str, Task], dataset: Archive) -> str:
    digest = hashlib.sha256(repr([library.__version__ for library in (cv2, np, PIL, skimage, torch)]).encode())
    for name, task in tasks.items():
        digest.update(f"{name} {type(task).__qualname__} {sorted(vars(task).items())}\n".encode())
    digest.update(f"{type(dataset).__qualname__} {dataset.image_size} {dataset.READ_AS} {dataset.names}\n".encode())
    for file in dataset.files:
        if not isinstance(file, Path):  # a row of a table
            digest.update(f"{file} {file.size}\n".encode())
            continue
        try:
            status = file.stat()
        except OSError:
            continue  # whoever reads it says so
        digest.update(f"{file.relative_to(dataset.root)} {status.st_size} {status.st_mtime_ns}\n".encode())
    home = Path(sak.__file__).parent
    code = {Path(__file__), *(Path(inspect.getfile(type(part))) for part in (dataset, *tasks.values()))}
    for source in sorted(code.union(*((home / part).rglob("*.py") for part in CODE))):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:32]


def constant_predictions(
    tasks: Mapping[str, Task],
    dataset: Archive,
    batch_size: int,
    workers: int,
    accelerator: Accelerator,
    timeout: int = loading.TIMEOUT,
    skips: Skips | None = None,
) -> Metrics:
    """Each metric of the best constant prediction: what can be had on this data set without looking at the images.

    Args:
        skips: whose images, as an evaluation has found them, are left out.

    Raises:
        UserError: a label cannot be read.
    """
    samples = LabelsAlone(dataset, skips)
    labels: dict[str, list[Tensor]] = {name: [] for name in tasks}
    load = functools.partial(loading.load, workers=workers, timeout=timeout, skips=skips)
    for _, batch in batches_of(samples, batch_size, load, accelerator, "constants", shard=False):
        for name in tasks:
            labels[name].append(_thinned_out(batch[name]).cpu())
    candidates = {
        name: task.constants(label for batch in labels[name] for label in batch).to(accelerator.device)
        for name, task in tasks.items()
    }
    metered = {
        name: [(constant, task.new_metric(workers).to(accelerator.device)) for constant in candidates[name]]
        for name, task in tasks.items()
    }
    for _, batch in batches_of(samples, batch_size, load, accelerator, "constants"):
        for name, task in tasks.items():
            shape = (len(batch["name"]), task.channels, *batch[name].shape[-2:])
            for constant, metric in metered[name]:
                output = constant.view(1, -1, 1, 1).expand(shape)
                metric.update(task.predict(output), task.truth(batch))
    best: Metrics = {}
    for name, task in tasks.items():
        values = [task.measured(metric) for _, metric in metered[name]]
        best[name] = {
            measure: (max if direction == HIGHER else min)(value[measure] for value in values)
            for measure, direction in task.measures.items()
        }
    return best


class LabelsAlone(Dataset):
    """A data set's labels, without decoding its images; those that an evaluation has found faulty stay left out."""

    def __init__(self, dataset: Archive, skips: Skips | None):
        self.labels = dataset.without_images()
        self.faulty = skips.listed() if skips else {}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        if index in self.faulty:
            raise FaultyFile(self.faulty[index])
        return self.labels[index]


def _thinned_out(labels: Tensor, pixels: int = 128 * 128) -> Tensor:
    """At most about ``pixels`` of each label map (..., H, W): the statistics of a whole set must fit in memory."""
    stride = max(1, round((labels.shape[-1] * labels.shape[-2] / pixels) ** 0.5))
    return labels[..., ::stride, ::stride]

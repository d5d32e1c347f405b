"""Batches in an order that is a function of the seed and the step alone, so that a resumed run sees what it would have.

A batch of a step is cut over processes and accumulated micro-batches: all of them together are the step's batch.
"""

import itertools
import signal
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from sak.errors import UserError


class _Reporting(Dataset):
    """Returns a UserError instead of raising it: a worker process would wrap its one line in a traceback."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getitem__(self, index: int):
        try:
            return self.dataset[index]
        except UserError as error:
            return error


def _collate(samples: list) -> dict | UserError:
    return next((sample for sample in samples if isinstance(sample, UserError)), None) or default_collate(samples)


def _start_worker(_: int) -> None:
    # Ctrl-C, and a scheduler's SIGTERM, reach the whole process group; the main process alone decides how to stop.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)


def load(dataset: Dataset, batches: Sequence[Sequence[int]], workers: int) -> Iterator[dict]:
    """Collated batches of the dataset's samples at the given indices.

    Raises:
        UserError: that the dataset raised over a sample.
    """
    loader = DataLoader(
        _Reporting(dataset),
        batch_sampler=batches,
        num_workers=min(workers, len(batches)),
        collate_fn=_collate,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # or the loader would draw from, and so move, the model's random state
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


class TrainingBatches:
    """The endless stream of a stage's training batches.

    Args:
        dataset: has ``set_epoch(epoch)``; its augmentation depends on its seed, the epoch and the index alone.
        batch_size: images per step, over all processes and micro-batches.
        accumulate: micro-batches per step.
        rank, world: this process among all.

    Raises:
        UserError: the batch cannot be cut evenly, or the data set has fewer images than a batch.
    """

    def __init__(self, dataset, batch_size: int, accumulate: int, seed: int, workers: int, rank: int, world: int):
        if batch_size % (accumulate * world):
            raise UserError(
                f"batch_size {batch_size} cannot be cut evenly into {accumulate} accumulated micro-batches "
                f"on {world} processes"
            )
        if len(dataset) < batch_size:
            raise UserError(f"batch_size is {batch_size}, but there are only {len(dataset)} training images")
        self.dataset, self.batch_size, self.accumulate = dataset, batch_size, accumulate
        self.seed, self.workers, self.rank, self.world = seed, workers, rank, world
        self.steps_per_epoch = len(dataset) // batch_size

    def indices(self, step: int) -> list[list[int]]:
        """This process's micro-batches of a step, as indices into the data set."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset))
        batch = order[position * self.batch_size : (position + 1) * self.batch_size]
        parts = np.split(batch, self.accumulate * self.world)
        return [part.tolist() for part in parts[self.rank :: self.world]]

    def steps(self, start: int, stop: int) -> Iterator[list[dict]]:
        """The micro-batches of each step in [start, stop)."""
        while start < stop:
            epoch = start // self.steps_per_epoch
            end = min(stop, (epoch + 1) * self.steps_per_epoch)
            self.dataset.set_epoch(epoch)
            micro_batches = [part for step in range(start, end) for part in self.indices(step)]
            loaded = load(self.dataset, micro_batches, self.workers)
            while step_batches := list(itertools.islice(loaded, self.accumulate)):
                yield step_batches
            start = end

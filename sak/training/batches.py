"""Batches in an order that is a function of the seed and the step alone, so that a resumed run sees what it would have.

A batch of a step is cut over processes and accumulated micro-batches: all of them together are the step's batch.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from sak.data.faulty_images import Skips
from sak.data.loading import TIMEOUT, Loading
from sak.errors import UserError


class TrainingBatches:
    """The endless stream of a stage's training batches.

    Args:
        dataset: has ``set_epoch(epoch)``; its augmentation depends on its seed, the epoch and the index alone.
        batch_size: images per step, over all processes and micro-batches.
        accumulate: micro-batches per step.
        rank, world: this process among all.
        timeout, skips: see `Loading`.
        shuffle: draw an order of the images for each epoch; else they come as they lie.

    Raises:
        UserError: the batch cannot be cut evenly, or the data set has fewer images than a batch.
    """

    def __init__(
        self,
        dataset,
        batch_size: int,
        accumulate: int,
        seed: int,
        workers: int,
        rank: int,
        world: int,
        timeout: int = TIMEOUT,
        skips: Skips | None = None,
        shuffle: bool = True,
    ):
        if batch_size % (accumulate * world):
            raise UserError(
                f"batch_size {batch_size} cannot be cut evenly into {accumulate} accumulated micro-batches "
                f"on {world} processes"
            )
        if len(dataset) < batch_size:
            raise UserError(f"batch_size is {batch_size}, but there are only {len(dataset)} training images")
        self.dataset, self.batch_size, self.accumulate = dataset, batch_size, accumulate
        self.seed, self.workers, self.rank, self.world = seed, workers, rank, world
        self.timeout, self.skips, self.shuffle = timeout, skips, shuffle
        self.steps_per_epoch = len(dataset) // batch_size
        self._drawn = (-1, np.empty(0, dtype=np.int64))  # an epoch and its order

    def indices(self, step: int) -> list[list[int]]:
        """This process's micro-batches of a step, as indices into the data set."""
        epoch, position = divmod(step, self.steps_per_epoch)
        batch = self._order(epoch)[position * self.batch_size : (position + 1) * self.batch_size]
        parts = np.split(batch, self.accumulate * self.world)
        return [part.tolist() for part in parts[self.rank :: self.world]]

    def images(self, steps: int) -> Iterator[tuple[int, np.ndarray]]:
        """Of each epoch that so many steps come to: the images that they see in it, over all processes, as indices."""
        for epoch in range(-(-steps // self.steps_per_epoch)):
            in_it = min(steps - epoch * self.steps_per_epoch, self.steps_per_epoch)
            yield epoch, self._order(epoch)[: in_it * self.batch_size]

    def _order(self, epoch: int) -> np.ndarray:
        """Of all images in an epoch; drawn once for its steps, as millions take a while."""
        if self._drawn[0] != epoch:
            order = np.arange(len(self.dataset))
            if self.shuffle:
                order = np.random.default_rng([self.seed, epoch]).permutation(order)
            self._drawn = (epoch, order)
        return self._drawn[1]

    def steps(self, start: int, stop: int) -> Iterator[list[dict]]:
        """The micro-batches of each step in [start, stop).

        The workers live from the first to the last, and read ahead into the next epoch; but not where samples come with
        records of a cache, for what it holds of an image may change until then.
        """
        cached = bool(getattr(self.dataset, "caches", None))
        at_once = min(stop - start, self.steps_per_epoch) if cached else stop - start
        workers = min(self.workers, self.accumulate * at_once)
        with Loading(self.dataset, workers, self.timeout, self.skips) as loading:
            while start < stop:
                end = min(stop, (start // self.steps_per_epoch + 1) * self.steps_per_epoch) if cached else stop
                micro_batches = (part for step in range(start, end) for part in self.indices(step))
                epochs = (step // self.steps_per_epoch for step in range(start, end) for _ in range(self.accumulate))
                loaded = loading.batches(micro_batches, epochs)
                while step_batches := list(itertools.islice(loaded, self.accumulate)):
                    yield step_batches
                start = end

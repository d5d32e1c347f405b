"""Batches of a data set's samples, loaded by worker processes: whatever goes wrong with them ends in one line."""

import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from sak.data.faulty_images import Skips
from sak.data.reading import FaultyFile
from sak.errors import UserError

TIMEOUT = 600  # seconds that a batch may take: far more than reading one ever does

Loaded = tuple[dict | UserError | None, dict[int, str]]  # a sample or batch; what is wrong with skipped images


class Samples(Protocol):
    """A data set: so many samples, each a dict; ``set_epoch(epoch)`` where they differ from epoch to epoch."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict: ...


def packed(dataset: Samples, index: int) -> dict:
    """A sample as it leaves a worker: with "pixels", which are uint8, for "image" where the data set can give it so.

    `sak.data.transforms.finish` does the rest, for a batch and on the device.
    """
    return getattr(dataset, "packed", dataset.__getitem__)(index)


class _Reporting(Dataset):
    """Returns a UserError instead of raising it: a worker process would wrap its one line in a traceback.

    With ``skips``, a faulty image is replaced, or None. A sample is asked for as (epoch, index), so that whichever
    worker makes it is in the right epoch; None where there are none.
    """

    def __init__(self, dataset: Samples, skips: Skips | None):
        self.dataset, self.skips = dataset, skips

    def __getitem__(self, place: tuple[int | None, int]) -> Loaded:
        epoch, index = place
        if epoch is not None:
            self.dataset.set_epoch(epoch)  # type: ignore[attr-defined]  # it has epochs, then
        faults: dict[int, str] = {}
        # Beyond the number that is allowed there is no need to look on: these faults alone end the run.
        for further in range(self.skips.allowed + 1 if self.skips and self.skips.replaced else 1):
            candidate = (index + further) % len(self.dataset)
            try:
                return packed(self.dataset, candidate), faults
            except UserError as error:
                if not (self.skips and isinstance(error, FaultyFile)):
                    return error, {}
                faults[candidate] = str(error)
        return None, faults


def _collate(loaded: list[Loaded]) -> Loaded:
    error = next((sample for sample, _ in loaded if isinstance(sample, UserError)), None)
    samples = [sample for sample, _ in loaded if sample is not None]
    faults = {index: reason for _, faulty in loaded for index, reason in faulty.items()}
    return error or (default_collate(samples) if samples else None), faults


def _start_worker(_: int) -> None:
    # What is wrong in a worker is said by the main process; the threads that hand its samples over would print traces.
    sys.excepthook = lambda *_: None
    # Ctrl-C, and a scheduler's SIGTERM, reach the whole process group; the main process alone decides how to stop.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)


@contextlib.contextmanager
def watching_workers() -> Iterator[None]:
    """Make one line of what torch raises over a worker process that died or that hangs.

    It raises over a death wherever the main process happens to be, also while it handles another error: put all that
    uses a loader inside.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        for reason in _reasons(error):
            if reason.startswith("DataLoader worker"):
                raise _death(reason) from error
            if reason.startswith("DataLoader timed out"):
                raise UserError(
                    f"no batch came from the processes that load data ({reason}): see whether the disk with the data "
                    "still answers, or set a larger data.timeout; the same command goes on from the last checkpoint"
                ) from error
        raise


def _reasons(error: BaseException) -> Iterator[str]:
    """The first line of an error, and of those that it came from or that it was raised over."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        if (next_one := waiting.pop(0)) not in seen:
            seen.append(next_one)
            yield (str(next_one).strip().splitlines() or [""])[0].rstrip(". ")
            waiting += [other for other in (next_one.__cause__, next_one.__context__) if other is not None]


def _death(reason: str) -> UserError:
    return UserError(
        f"a process that loads data died ({reason}): most likely memory ran out; use fewer (data.workers) or smaller "
        "batches; the same command goes on from the last checkpoint"
    )


def evenly_spread(total: int, count: int | None = None) -> list[int]:
    """The indices of so many of a data set's samples, from the first to the last; of all, if there are no more."""
    return np.linspace(0, total - 1, min(count or total, total)).round().astype(int).tolist()


class Loading:
    """A data set and the worker processes that load its samples; they live until the end of the ``with`` block.

    Args:
        timeout: seconds after which a batch that does not come from the workers is given up.
        skips: which faulty images to do without; a batch of which none is left is None. None: a faulty one is an error.
    """

    def __init__(self, dataset: Samples, workers: int, timeout: int = TIMEOUT, skips: Skips | None = None):
        self.skips = skips
        self._asked = _Asked()
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._loader = DataLoader(
            _Reporting(dataset, skips),
            batch_sampler=self._asked,  # type: ignore[arg-type]  # anything that yields what is asked of the data set
            num_workers=workers,
            persistent_workers=workers > 0,
            timeout=timeout if workers else 0,
            collate_fn=_collate,
            worker_init_fn=_start_worker,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # or the loader would draw from, and so move, the model's random state
        )

    def __enter__(self) -> "Loading":
        return self

    def __exit__(self, *_) -> None:
        del self._loader  # which ends the workers, but for one that hangs, or if an error's traceback holds it too:
        for process in self._processes:  # they ignore SIGTERM, and would be waited for at the program's end for ever
            with contextlib.suppress(RuntimeError):  # of torch's signal handler, over this death
                process.kill()
                process.join(timeout=5)

    def batches(self, batches: Iterable[Sequence[int]], epochs: Iterable[int] | None = None) -> Iterator[dict | Any]:
        """Collated batches of the samples at the given indices, and in the epoch of each batch if the data set has any.

        Raises:
            UserError: that the data set raised over a sample; too many are faulty; a worker died or hangs.
        """
        self._asked.batches, self._asked.epochs = batches, epochs
        with watching_workers():
            try:
                for batch, faults in self._loaded():
                    if isinstance(batch, UserError):
                        raise batch
                    if self.skips is not None and faults:
                        self.skips.note(faults)
                    yield batch
            except (OSError, EOFError, RuntimeError) as error:
                # What torch raises need not be about the death that it comes from.
                if reason := self._who_died():
                    raise _death(reason) from error
                raise

    def _who_died(self) -> str | None:
        """Which of the workers did, and of what; None if all live. One that is dying is waited for."""
        at_its_end = multiprocessing.connection.wait([process.sentinel for process in self._processes], timeout=1)
        for process in self._processes:
            if process.sentinel in at_its_end:
                process.join(timeout=5)  # it closes its files before it is dead
                code = process.exitcode or 0
                how = f"is killed by signal: {signal.strsignal(-code)}" if code < 0 else f"has ended with code {code}"
                return f"DataLoader worker (pid {process.pid}) {how}"
        return None

    def _loaded(self) -> Iterator[Loaded]:
        others = multiprocessing.active_children()
        loaded = iter(self._loader)
        self._processes += [child for child in multiprocessing.active_children() if child not in others]
        yield from loaded


class _Asked:
    """What is asked of the data set next: batches of (epoch, index)."""

    batches: Iterable[Sequence[int]] = ()
    epochs: Iterable[int] | None = None

    def __iter__(self) -> Iterator[list[tuple[int | None, int]]]:
        epochs = itertools.repeat(None) if self.epochs is None else self.epochs
        return ([(epoch, index) for index in batch] for batch, epoch in zip(self.batches, epochs, strict=False))


def load(
    dataset: Samples,
    batches: Sequence[Sequence[int]],
    workers: int,
    timeout: int = TIMEOUT,
    skips: Skips | None = None,
) -> Iterator[dict | Any]:
    """Collated batches of the data set's samples at the given indices, `packed`, by workers of their own.

    Arguments and errors as of `Loading`; `to_device` finishes the batches.
    """
    with Loading(dataset, min(workers, len(batches)), timeout, skips) as loading:
        yield from loading.batches(batches)

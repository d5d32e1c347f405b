"""Batches of a data set's samples, loaded by worker processes: whatever goes wrong with them ends in one line."""

import contextlib
import multiprocessing
import signal
from collections.abc import Iterator, Sequence
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
    """A data set: so many samples, each a dict."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict: ...


def packed(dataset: Samples, index: int) -> dict:
    """A sample as it leaves a worker: with "pixels", which are uint8, for "image" where the data set can give it so.

    `sak.data.transforms.finish` does the rest, for a batch and on the device.
    """
    return getattr(dataset, "packed", dataset.__getitem__)(index)


class _Reporting(Dataset):
    """Returns a UserError instead of raising it: a worker process would wrap its one line in a traceback.

    With ``skips``, a faulty image is replaced, or None.
    """

    def __init__(self, dataset: Samples, skips: Skips | None):
        self.dataset, self.skips = dataset, skips

    def __getitem__(self, index: int) -> Loaded:
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
    # Ctrl-C, and a scheduler's SIGTERM, reach the whole process group; the main process alone decides how to stop.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)


@contextlib.contextmanager
def watching_workers() -> Iterator[None]:
    """Make one line of what torch raises over a worker process that died or that hangs.

    It raises over a death wherever the main process happens to be: put all that uses a loader inside.
    """
    try:
        yield
    except RuntimeError as error:
        reason = (str(error.__cause__ or error).strip().splitlines() or [""])[0].rstrip(". ")
        if reason.startswith("DataLoader worker"):
            raise UserError(
                f"a process that loads data died ({reason}): most likely memory ran out; use fewer (data.workers) or "
                "smaller batches; the same command goes on from the last checkpoint"
            ) from error
        if reason.startswith("DataLoader timed out"):
            raise UserError(
                f"no batch came from the processes that load data ({reason}): see whether the disk with the data still "
                "answers, or set a larger data.timeout; the same command goes on from the last checkpoint"
            ) from error
        raise


def evenly_spread(total: int, count: int | None = None) -> list[int]:
    """The indices of so many of a data set's samples, from the first to the last; of all, if there are no more."""
    return np.linspace(0, total - 1, min(count or total, total)).round().astype(int).tolist()


def load(
    dataset: Samples,
    batches: Sequence[Sequence[int]],
    workers: int,
    timeout: int = TIMEOUT,
    skips: Skips | None = None,
) -> Iterator[dict | Any]:
    """Collated batches of the dataset's samples at the given indices, `packed`: `to_device` finishes them.

    Args:
        timeout: seconds after which a batch that does not come from the workers is given up.
        skips: which faulty images to do without; a batch of which none is left is None. None: a faulty one is an error.

    Raises:
        UserError: that the dataset raised over a sample; too many are faulty; a worker died or hangs.
    """
    workers = min(workers, len(batches))
    loader = DataLoader(
        _Reporting(dataset, skips),
        batch_sampler=batches,  # type: ignore[arg-type]  # any sequences of indices will do
        num_workers=workers,
        timeout=timeout if workers else 0,
        collate_fn=_collate,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # or the loader would draw from, and so move, the model's random state
    )
    others = multiprocessing.active_children()
    with watching_workers():
        loaded = iter(loader)
        processes = [child for child in multiprocessing.active_children() if child not in others]
        try:
            for batch, faults in loaded:
                if isinstance(batch, UserError):
                    raise batch
                if skips is not None and faults:
                    skips.note(faults)
                yield batch
        finally:
            del loaded  # which ends the workers, but for one that hangs, or if an error's traceback holds it too:
            for process in processes:  # they ignore SIGTERM, and would be waited for at the program's end for ever
                with contextlib.suppress(RuntimeError):  # of torch's signal handler, over this death
                    process.kill()
                    process.join(timeout=5)

"""Checkpoints of a run: written whole or not at all, verified when read, found again in the order of training."""

import errno
import os
import re
import shutil
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sak.config.schema import ORDER
from sak.errors import UserError
from sak.files import replacing
from sak.training.loss_record import DIVERGED

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NETWORK = "student"  # the weights of what is trained, whatever it is
CONTENT = ("stage", "step", NETWORK, "optimizer", "scaler")  # no random state: it is drawn anew for every step


@dataclass
class Progress:
    """How far a run has come: ``step`` steps of ``stage`` are done."""

    stage: str
    step: int


class CorruptCheckpoint(UserError):
    """A checkpoint that is not what was written."""


def path_of(directory: Path, progress: Progress) -> Path:
    return directory / f"{progress.stage}-{progress.step:07d}.pt"


def save(directory: Path, progress: Progress, state: dict[str, Any], keep: int = 2) -> None:
    """Write a checkpoint; once it is complete, only the newest ``keep`` of the stage are left.

    ``state`` holds tensors, numbers, strings, and lists and dicts of them: what ``weights_only`` loads back.

    Raises:
        UserError: there is no room for it; the checkpoints before it are left as they are.
        FloatingPointError: a weight of the student is not finite; nothing is written.
    """
    if name := not_finite(state[NETWORK]):
        raise FloatingPointError(
            f"{name} of the student is not finite after step {progress.step} of the stage {progress.stage}; {DIVERGED}"
        )
    path = path_of(directory, progress)
    try:
        with replacing(path) as partial:
            torch.save({"stage": progress.stage, "step": progress.step, **state}, partial)
    except (OSError, RuntimeError) as error:  # torch makes a RuntimeError of a write that failed
        if isinstance(error, OSError) and error.errno not in FULL:
            raise
        reason = error.strerror if isinstance(error, OSError) else "the file could not be written to its end"
        raise UserError(
            f"checkpoint {path} cannot be saved: {reason}, and {shutil.disk_usage(directory).free / 1e6:,.0f} MB are "
            "free on its disk; make room there: the same command goes on from the checkpoint before it"
        ) from error
    prune(directory, progress.stage, keep)


def prune(directory: Path, stage: str, keep: int) -> None:
    """Leave only the newest ``keep`` of the stage."""
    for old in _of_stage(directory, stage)[:-keep]:
        old.unlink()


def newest(directory: Path) -> Path | None:
    """The checkpoint furthest in training, corrupt or not, or None."""
    return next(iter(_newest_first(directory)), None)


def resume(directory: Path, verify: bool = True) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that is intact, and its content; None if there are no checkpoints.

    Corrupt ones that are newer are named in a warning and set aside, as ``<name>.corrupt``: they no longer count.

    Args:
        verify: as of `load`.

    Raises:
        UserError: there are checkpoints, but all are corrupt; they are left as they are.
    """
    corrupt: dict[Path, str] = {}
    for path in _newest_first(directory):
        try:
            state = load(path, verify)
        except CorruptCheckpoint as error:
            corrupt[path] = str(error)
            continue
        for other, reason in corrupt.items():
            aside = other.with_name(f"{other.name}.corrupt")
            os.replace(other, aside)
            warnings.warn(f"{reason}: it is now {aside.name}, and training goes on from {path.name}", stacklevel=2)
        return path, state
    if corrupt:
        first = next(iter(corrupt.values()))
        raise UserError(
            f"no checkpoint in {directory} can be read ({len(corrupt)} are corrupt; {first}); "
            "restore one, or delete them all to begin anew"
        )
    return None


def take_up(directory: Path, keep: Mapping[str, int], accelerator: Accelerator) -> tuple[Path, dict[str, Any]] | None:
    """`resume` of all processes together, the first of which verifies the checkpoints and prunes them.

    Args:
        keep: {stage: how many of its checkpoints}, where a kill may have left more.
    """
    with accelerator.main_process_first():
        found = resume(directory, verify=accelerator.is_main_process)
        for stage, number in keep.items() if accelerator.is_main_process else ():
            prune(directory, stage, number)
    return found


def load_network(network: nn.Module, path: Path, state: dict[str, Any]) -> None:
    """The weights of a checkpoint, which are taken out of its state.

    Raises:
        UserError: they are of another one.
    """
    try:
        network.load_state_dict(state.pop(NETWORK), strict=True)
    except RuntimeError as error:
        difference = str(error).splitlines()[1].strip()
        raise UserError(f"checkpoint {path} is of another student: {difference}") from error


def load(path: Path, verify: bool = True) -> dict[str, Any]:
    """
    Args:
        verify: compare checksums, and see whether the student's weights are finite. Of several processes that read the
            same file, one need do so.

    Raises:
        CorruptCheckpoint: the file is incomplete, its checksums do not fit its content, it is no checkpoint, or the
            weights are ruined.
    """
    try:
        # torch writes a checksum of each tensor into its archive, but does not look at it when it reads.
        with zipfile.ZipFile(path) as archive:
            if verify and (wrong := archive.testzip()):
                raise zipfile.BadZipFile(f"the checksum of {wrong} is wrong")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:  # nothing is wrong with what is in it
        raise
    except Exception as error:  # zipfile and torch raise several kinds over a corrupt archive
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CorruptCheckpoint(f"checkpoint {path} is corrupt ({reason})") from error
    lacking = [key for key in CONTENT if not isinstance(state, dict) or key not in state]
    if lacking:
        raise CorruptCheckpoint(f"checkpoint {path} is none of a training (it has no {lacking[0]!r})")
    if not isinstance(state[NETWORK], dict):
        raise CorruptCheckpoint(f"checkpoint {path} is none of a training (its student is no dict of weights)")
    if verify and (name := not_finite(state[NETWORK])):
        raise CorruptCheckpoint(f"checkpoint {path} is corrupt ({name} of the student is not finite)")
    stage, step = state["stage"], state["step"]
    if stage not in ORDER or not isinstance(step, int) or path_of(path.parent, Progress(stage, step)) != path:
        raise CorruptCheckpoint(f"checkpoint {path} is not what its name says (it is of step {step!r} of {stage!r})")
    return state


def not_finite(student: Mapping[str, Tensor]) -> str | None:
    """The first weight or statistic that is not finite; None if all are."""
    return next((name for name, values in student.items() if not values.isfinite().all()), None)


def _newest_first(directory: Path) -> list[Path]:
    return [path for stage in reversed(ORDER) for path in reversed(_of_stage(directory, stage))]


def _of_stage(directory: Path, stage: str) -> list[Path]:
    files = [file for file in directory.glob(f"{stage}-*.pt") if re.fullmatch(rf"{stage}-\d+\.pt", file.name)]
    return sorted(files, key=lambda file: int(file.stem.removeprefix(f"{stage}-")))

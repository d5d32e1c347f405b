"""Checkpoints of a run: written whole or not at all, found again in the order of training."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sak.errors import UserError
from sak.files import replacing

STAGES = ("distill", "multitask")
KEPT = 2  # of a stage, the newest: a damaged one leaves its predecessor


@dataclass
class Progress:
    """How far a run has come: ``step`` steps of ``stage`` are done."""

    stage: str
    step: int


def path_of(directory: Path, progress: Progress) -> Path:
    return directory / f"{progress.stage}-{progress.step:07d}.pt"


def save(directory: Path, progress: Progress, state: dict[str, Any]) -> None:
    """Write a checkpoint; older ones of the stage are removed once it is complete.

    ``state`` holds tensors, numbers, strings, and lists and dicts of them: what ``weights_only`` loads back.
    """
    with replacing(path_of(directory, progress)) as beside:
        torch.save({"stage": progress.stage, "step": progress.step, **state}, beside)
    for old in _of_stage(directory, progress.stage)[:-KEPT]:
        old.unlink()


def newest(directory: Path) -> Path | None:
    """The checkpoint furthest in training, or None."""
    return next((files[-1] for stage in reversed(STAGES) if (files := _of_stage(directory, stage))), None)


def load(path: Path) -> dict[str, Any]:
    """
    Raises:
        UserError: the file is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises several kinds over a damaged archive
        raise UserError(
            f"checkpoint {path} cannot be read ({str(error).splitlines()[0]}); "
            "delete it to go on from the one before it"
        ) from error


def random_state() -> dict[str, Any]:
    return {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}


def restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def _of_stage(directory: Path, stage: str) -> list[Path]:
    return sorted(file for file in directory.glob(f"{stage}-*.pt") if re.fullmatch(rf"{stage}-\d+\.pt", file.name))

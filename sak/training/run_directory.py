"""Where a run keeps what it makes, and how it knows its own work again."""

import fcntl
import os
import platform
import subprocess
import weakref
from pathlib import Path
from typing import IO

import torch
from omegaconf import DictConfig, OmegaConf

from sak import config as configuration
from sak.errors import UserError
from sak.files import remove_partial, write_json

# What may change between two starts of the same experiment.
FREE_KEYS = (
    "data.workers",
    "data.timeout",
    "data.on_error",
    "data.max_skipped",
    "checkpoint_every",
    "keep_last",
    "keep_best",
    "log_every",
    "accumulate",
    "distributed",
    "evaluation.batch_size",
)
FREE_SECTIONS = ("probe.", "tracking.")  # no part of the training


class RunDirectory:
    """``<output>/<name>/`` of a config.

    config.yaml       the resolved config
    environment.json  versions and the git revision
    checkpoints/      resumable states
    student/          the trained student as a bundle: config.json and model.safetensors
    student_best/     the one that was best in stages.multitask.keep_best, and best.json: its value and step
    metrics.json      {task: {metric: value}}; written last, it marks the run as finished
    constants.json    the same of the best constant prediction
    results.md        both as a table
    skipped.txt       the images that were skipped as faulty
    panels/           predictions, STAGE-STEP.png of each evaluation
    routing/          router weights, likewise
    events/           TensorBoard: see sak.training.tracking
    """

    def __init__(self, config: DictConfig):
        self.path = Path(config.output) / config.name
        self._lock: IO[str] | None = None
        self.config_file = self.path / "config.yaml"
        self.checkpoints = self.path / "checkpoints"
        self.student = self.path / "student"
        self.student_best = self.path / "student_best"
        self.metrics = self.path / "metrics.json"
        self.constants = self.path / "constants.json"
        self.results = self.path / "results.md"
        self.skipped = self.path / "skipped.txt"
        self.panels = self.path / "panels"
        self.routing = self.path / "routing"
        self.events = self.path / "events"

    @property
    def finished(self) -> bool:
        return self.metrics.is_file()

    def check(self, config: DictConfig) -> None:
        """
        Raises:
            UserError: the directory holds another experiment, or something that is no run.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise UserError(f"{self.path} is a file; choose another output or name")
        if not self.config_file.is_file():
            if any(entry.name != ".lock" for entry in self.path.iterdir()):
                raise UserError(f"{self.path} is not empty and holds no run; choose another output or name")
            return
        before = configuration.load(self.config_file)  # an option that is younger than the run has its default
        differing = configuration.differences(config, before)
        changed = [key for key in differing if not key.endswith(FREE_KEYS) and not key.startswith(FREE_SECTIONS)]
        if changed:
            key = changed[0]
            raise UserError(
                f"{self.path} holds a different experiment: {key} is {OmegaConf.select(before, key)!r} there and "
                f"{OmegaConf.select(config, key)!r} here ({len(changed)} differing keys); choose another name or output"
            )

    def open(self, config: DictConfig) -> None:
        """Create the directory, lock it against a second process, tidy it up, and note what is being run.

        Raises:
            UserError: another process is at work in it.
        """
        self._lock = lock(self.path)
        for directory in (self.path, self.checkpoints, self.panels, self.routing):
            remove_partial(directory)
        configuration.save(config, self.config_file)
        write_json(self.path / "environment.json", _environment())

    def close(self) -> None:
        """Let other processes work in it."""
        if self._lock is not None:
            self._lock.close()


def lock(directory: Path) -> IO[str]:
    """Create the directory and lock it for as long as the returned file lives.

    Raises:
        UserError: another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = open(directory / ".lock", "w")  # noqa: SIM115  (the caller holds it)
    # Processes that it starts must not hold it too: for a moment they outlive one that was killed.
    held = weakref.ref(file)

    def close_inherited() -> None:
        if (inherited := held()) is not None:
            inherited.close()

    os.register_at_fork(after_in_child=close_inherited)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(f"another process is at work in {directory}; wait for it or choose another name") from None
    return file


def _environment() -> dict[str, str | None]:
    try:
        revision = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=os.path.dirname(__file__),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        revision = None  # installed without its repository
    return {"python": platform.python_version(), "torch": torch.__version__, "git": revision}

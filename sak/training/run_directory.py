"""Where a run keeps what it makes, how it knows its own work again, and how it is taken to its end."""

import fcntl
import os
import weakref
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import IO, Protocol

from accelerate import Accelerator
from omegaconf import DictConfig, OmegaConf

from sak import config as configuration
from sak import environment
from sak.config.schema import LOCATIONS
from sak.data.loading import watching_workers
from sak.errors import UserError, shown
from sak.evaluation.distributed import settled, watching_processes
from sak.files import about, read_json, tidy, write_json
from teachers.base import RANDOM

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
    inputs.json       what images and weights it began with, see `check_inputs`
    environment.json  versions, the git revision and the machine; written anew by each start
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
        self.inputs = self.path / "inputs.json"
        self.environment = self.path / "environment.json"
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
        for path in (self.checkpoints, self.student, self.student_best, self.panels, self.routing, self.events):
            if path.exists() and not path.is_dir():
                raise UserError(f"{path} is a file, where a run has a directory: remove it, or choose another name")
        for path in (self.metrics, self.constants, self.results, self.skipped, self.inputs, self.environment):
            if path.is_dir():
                raise UserError(f"{path} is a directory, where a run has a file: remove it, or choose another name")
        before = configuration.load(self.config_file)  # an option that is younger than the run has its default
        config = settled(config, self.config_file)
        changed = [key for key in configuration.differences(config, before) if not _is_free(key, config, before)]
        if changed:
            key = changed[0]
            there, here = (shown(repr(OmegaConf.select(each, key))) for each in (before, config))
            raise UserError(
                f"{self.path} holds a different experiment: {key} is {there} there and {here} here "
                f"({len(changed)} differing keys); choose another name or output"
            )

    def check_inputs(self, inputs: Mapping[str, str]) -> None:
        """What the run goes on with must be what it began with, wherever it lies now.

        Args:
            inputs: {what: what tells it from others}.

        Raises:
            UserError: one is another.
        """
        before = read_json(self.inputs) if self.inputs.is_file() else {}  # of a run that is older than the file: any
        for what, now in inputs.items():
            if before.get(what, now) != now:
                raise UserError(
                    f"{self.path} began with other {what} ({before[what]}) than there are now ({now}): restore what "
                    "it began with, or choose another name"
                )

    def open(self, config: DictConfig, inputs: Mapping[str, str] | None = None) -> None:
        """Create the directory, lock it against a second process, tidy it up, and note what is being run.

        Args:
            inputs: as of `check_inputs`.

        Raises:
            UserError: another process is at work in it.
        """
        self._lock = lock(self.path)
        for directory in (self.path, self.checkpoints, self.panels, self.routing):
            tidy(directory)
        configuration.save(config, self.config_file)
        before = read_json(self.inputs) if self.inputs.is_file() else {}
        write_json(self.inputs, {**before, **(inputs or {})})
        write_json(self.environment, environment.describe())

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
        with about(file.name):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another process is at work in {directory}; wait for it or choose another name") from None
    return file


def _is_free(key: str, now: DictConfig, before: DictConfig) -> bool:
    """Whether a key may differ between two starts of an experiment."""
    if key in LOCATIONS or (key.startswith("teachers.") and key.endswith(".weights")):
        # The same may lie elsewhere today, or be written otherwise: whether it is the same, `check_inputs` sees.
        places = [OmegaConf.select(config, key) for config in (now, before)]
        return None not in places and RANDOM not in places
    return key == "name" or key.endswith(FREE_KEYS) or key.startswith(FREE_SECTIONS)


class Experiment(Protocol):
    """What a run is of: it goes on from the run's checkpoints."""

    accelerator: Accelerator

    def finish(self) -> None: ...


def carry_out(config: DictConfig, build: Callable[[DictConfig, RunDirectory], Experiment]) -> RunDirectory:
    """Take an experiment to its end, from wherever an earlier start of it stopped; nothing, if it has been there.

    Any number of processes (torchrun's) do it together; what one of them does alone is done by the first.

    Returns:
        its finished run directory.

    Raises:
        UserError: something in the config, the data or the run directory is wrong, or another process has died.
        KeyboardInterrupt: the user stopped it; a checkpoint was written.
        FloatingPointError: a loss became infinite or not a number.
    """
    run = RunDirectory(config)
    config = settled(config, run.config_file)
    run.check(config)
    if not run.finished:
        with closing(run), about(run.path), watching_processes(), watching_workers():
            experiment = build(config, run)
            experiment.finish()
            experiment.accelerator.end_training()
    return run

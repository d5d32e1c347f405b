"""What the runs of an ablation cost: measured on finished runs, or foretold before the first."""

import itertools
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig

from sak import data
from sak.bundles.build import build_labelled, build_tasks, build_training_set
from sak.config.derived import active_stages, left_out, number_of_steps
from sak.config.schema import STAGES
from sak.errors import UserError
from sak.preflight.plan import build_without_weights, count
from sak.training.run_directory import RunDirectory
from sak.training.tracking import read_scalars

TRIAL_STEPS = 10  # of each stage


@dataclass
class Timing:
    """Of one run, in seconds.

    Attributes:
        step: {stage: the median over its steps}; where only one was logged, by the images per second that it shows.
        rest: what followed the last step: evaluation, constant predictions, files.
    """

    step: dict[str, float]
    rest: float

    def training(self, steps: Mapping[str, int]) -> float:
        """Of so many steps of each stage."""
        return sum(self.step.get(stage, 0.0) * number for stage, number in steps.items())

    def whole(self, steps: Mapping[str, int], evaluations: int) -> float:
        """Of a run; loading its libraries is left out, and an evaluation within the run counted as high as the last."""
        return self.training(steps) + self.rest * evaluations


def timing(config: DictConfig) -> Timing:
    """Of the finished run of a config, from the times in its events: an interruption does not count.

    What follows the last step began with it, or with a later start of the run.

    Raises:
        UserError: the events are gone.
    """
    run = RunDirectory(config)
    if not run.events.is_dir():
        raise UserError(f"{run.events} is gone, so that the run's cost is unknown: restore it, or train the run again")
    scalars = read_scalars(run.events)
    seconds, last = {}, 0.0
    for stage in STAGES:
        if f"{stage}/learning_rate" not in scalars:
            continue
        logged = scalars[f"{stage}/learning_rate"]
        per_step = [(b.time - a.time) / (b.step - a.step) for a, b in itertools.pairwise(logged)]
        if not per_step:
            rate = scalars[f"{stage}/images_per_second"][-1].value
            per_step = [config.stages[stage].batch_size / rate]
        seconds[stage] = statistics.median(per_step)
        last = logged[-1].time
    started = run.environment.stat().st_mtime if run.environment.is_file() else 0.0
    return Timing(seconds, max(0.0, run.metrics.stat().st_mtime - max(last, started)))


def mean_timing(timings: list[Timing]) -> Timing:
    """The median of each of its numbers."""
    stages = {stage for each in timings for stage in each.step}
    step = {stage: statistics.median(t.step[stage] for t in timings if stage in t.step) for stage in stages}
    return Timing(step, statistics.median(each.rest for each in timings))


def steps_of(config: DictConfig) -> dict[str, int]:
    """{stage: its steps}, of those that take part; where they are given in epochs the images are counted."""
    steps = {}
    for stage in active_stages(config):
        settings = config.stages[stage]
        steps[stage] = number_of_steps(settings, images_of(config, stage) if settings.steps is None else 0)
    return steps


def images_of(config: DictConfig, stage: str) -> int:
    """How many images a stage trains on; a data set that is made on first use is made."""
    if stage != "distill" or config.stages.distill.images is None:
        data.prepare(config.data)
    return len(build_training_set(config, stage, lambda: build_labelled(config)))


def evaluations_of(config: DictConfig, steps: Mapping[str, int]) -> int:
    """How often a run evaluates, its end included."""
    every = config.stages.multitask.evaluate_every
    return 1 + ((steps["multitask"] - 1) // every if every else 0)


def trial_of(config: DictConfig, output: Path) -> DictConfig:
    """The config as a run of a few steps, whose timing stands for that of longer ones; it leaves the cache alone."""
    trial = config.copy()
    trial.name, trial.output, trial.cache.path = "trial", str(output), None
    for name, stage in trial.stages.items():
        if not left_out(stage):
            stage.steps, stage.epochs, stage.log_every = TRIAL_STEPS, None, 1
            if config.stages[name].steps is not None:
                stage.steps = min(TRIAL_STEPS, config.stages[name].steps)
    trial.stages.multitask.evaluate_every = trial.stages.multitask.keep_best = None
    return trial


def student_parameters(config: DictConfig) -> int:
    """Of the student as it is used: without aligners. Nothing is read or downloaded.

    Raises:
        UserError: the parts of the config do not fit together.
    """
    with torch.device("meta"):
        _, student = build_without_weights(config, build_tasks(config.data))
    return count(student) - sum(count(student.path(name).aligners) for name in student.paths)


def duration(seconds: float) -> str:
    """For people, as in 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"

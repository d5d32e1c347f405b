"""The main job: distil the teachers into a student, train it on the tasks, evaluate it.

Everything that is random depends on the seed and the step, so that the same command goes on where an interrupted run
stopped.
"""

import functools
from pathlib import Path
from typing import cast

import torch
from omegaconf import DictConfig

from sak import data
from sak.adaptation import Adapted
from sak.bundles.build import (
    build_committee,
    build_labelled,
    build_student,
    build_tasks,
    build_training_set,
    start_from_weights,
    widths_of,
)
from sak.bundles.change import changed_student, describe_start, trained_student
from sak.config.derived import active_stages, change, frozen_backbone, number_of_steps, taught_by
from sak.config.schema import STAGES
from sak.data.archive import Archive
from sak.data.faulty_images import build_skips
from sak.errors import UserError
from sak.evaluation.distributed import Agreement, build_accelerator
from sak.student.hub import WEIGHTS
from sak.tasks import find_metric
from sak.training import checkpoint, results
from sak.training.batches import TrainingBatches
from sak.training.checkpoint import Progress
from sak.training.run_directory import RunDirectory, carry_out
from sak.training.stage import StageTraining, set_image_size
from sak.training.standardising import check_kinds
from sak.training.teacher_targets import Teaching
from sak.training.tracking import Tracker
from sak.training.validation import Validation
from teachers import Committee
from teachers.fingerprints import names_hash, weights_hash
from teachers.weights import sha256_of


def train(config: DictConfig) -> RunDirectory:
    """Run the experiment to its end: see `carry_out`.

    Raises:
        UserError: there is nothing to train, too.
    """
    if not active_stages(config) and not change(config):
        raise UserError("stages.distill.steps and stages.multitask.steps are both 0: there is nothing to train")
    return carry_out(config, Experiment)


class Experiment:
    """The parts of one run, and their order: both stages, then the results."""

    def __init__(self, config: DictConfig, run: RunDirectory):
        self.config, self.run = config, run
        self.accelerator = build_accelerator(config.precision, config.data.timeout)
        self.agreement = Agreement(self.accelerator.num_processes)
        torch.manual_seed(config.seed)  # of all weights that are drawn
        self.stages = active_stages(config)
        source = trained_student(config)
        # Without the second stage there is nothing to predict with, unless a trained student is changed: no heads, no
        # labelled data, no evaluation.
        tasks = build_tasks(config.data) if "multitask" in self.stages or (source and source.heads) else {}
        if tasks and config.stages.multitask.keep_best:
            find_metric(config.stages.multitask.keep_best, tasks, "stages.multitask.keep_best")
        widths = None if source else widths_of(config)
        teachers = taught_by(config) if widths is None else []
        committee = build_committee(config, teachers).to(self.accelerator.device) if teachers else None
        for line in committee.reports if committee else ():
            self.accelerator.print(f"teacher {line}")
        dims = committee.dims if committee else widths or {}
        if committee is None and "distill" in self.stages:
            raise UserError("there are no teachers to distil: set stages.distill.steps=0, or add teachers")
        fresh = checkpoint.newest(run.checkpoints) is None
        if source:
            self.student, start = changed_student(config, source, tasks, dims), describe_start(config)
        else:
            self.student = build_student(config, tasks, dims)
            start = start_from_weights(self.student, config) if fresh else ""
        if fresh:
            check_kinds(config)
            self.accelerator.print(f"the student starts with {start}")
        if (backbone := frozen_backbone(config)) is not None:
            committee = Committee.of({backbone: cast(Adapted, self.student).backbone})
        self.teaching = Teaching(config, committee, self.accelerator)
        self.names: dict[str, str] = {}  # of a stage's images
        with self.accelerator.main_process_first():  # which renders and indexes for all
            if tasks or config.stages.distill.images is None:
                data.prepare(config.data)
            self.batches = {stage: self._training_batches(stage) for stage in self.stages}
        self.teaching.allocate()
        images = {stage: len(batches.dataset) for stage, batches in self.batches.items()}
        self.steps = {stage: number_of_steps(config.stages[stage], images.get(stage, 0)) for stage in STAGES}
        self.validation = Validation(config, run, tasks, self.accelerator) if tasks else None
        inputs = self._inputs()
        run.check_inputs(inputs)
        self.accelerator.wait_for_everyone()  # all have looked before the first one writes
        if self.accelerator.is_main_process:
            run.open(config, inputs)

    def finish(self) -> None:
        """Train what is left, evaluate, and write the bundle and the results."""
        state = self._resume()
        done = Progress(state["stage"], state["step"]) if state else Progress(STAGES[0], 0)
        tracker = Tracker(self.config, self.run, self.steps, done) if self.accelerator.is_main_process else None
        if tracker and len(self.student.routers):
            tracker.layout(self.student.routers, self.student.levels)
        for stage in STAGES[STAGES.index(done.stage) :]:
            start = done.step if stage == done.stage else 0
            if start < self.steps[stage]:
                self._training(stage, tracker).train(start, state)
            state = None  # which was of the first of these stages; else it would stay in memory
        self._write_results(tracker)

    def _resume(self) -> dict | None:
        """What is left of the newest checkpoint once student, teaching and scaler have theirs; None without any."""
        keep = {stage: self.config.stages[stage].keep_last for stage in STAGES}
        found = checkpoint.take_up(self.run.checkpoints, keep, self.accelerator)
        if found is None:
            return None
        path, state = found
        set_image_size(self.student, self.config, state["stage"])
        checkpoint.load_network(self.student, path, state)
        self.teaching.load_states(state.pop("standardise", {}))
        if self.accelerator.scaler is not None and (scaler := state.pop("scaler")):
            self.accelerator.scaler.load_state_dict(scaler)  # one for both stages
        self.accelerator.print(f"going on from {path}")
        return state

    def _training(self, stage: str, tracker: Tracker | None) -> StageTraining:
        return StageTraining(
            stage,
            f"stage {list(self.stages).index(stage) + 1}/{len(self.stages)} {stage}",
            self.steps[stage],
            self.config,
            self.student,
            self.batches[stage],
            self.accelerator,
            self.agreement,
            self.run.checkpoints,
            tracker,
            self.teaching,
            self.validation,
        )

    def _write_results(self, tracker: Tracker | None) -> None:
        """Evaluate at the end, if there are tasks."""
        skips = [batches.skips for batches in self.batches.values()]
        if self.validation:
            end = Progress(STAGES[-1], self.steps[STAGES[-1]])
            metrics = self.validation.evaluate(self.student, end, tracker).metrics
            constants, skips = self.validation.constants(), [*skips, self.validation.skips]
        if tracker is None:
            return
        if self.validation:
            tasks = self.validation.tasks
            results.write_evaluated(self.config, self.run, self.student, tasks, metrics, constants, skips)
        else:
            learned = self.teaching.learned if self.teaching.committee else None
            how = (self.steps["distill"], skips, learned, self.accelerator.device)
            results.write_distilled(self.config, self.run, self.student, *how)
        tracker.text("run/results", self.run.results.read_text(encoding="utf-8"))
        tracker.close()

    def _inputs(self) -> dict[str, str]:
        """{what: what tells it from others} of all that the run reads but does not hold itself."""
        inputs = {f"images of {stage}": names for stage, names in self.names.items()}
        if self.validation:
            inputs["images of val"] = names_hash(self.validation.images.image_files)
        if isinstance(self.student, Adapted):
            inputs[f"weights of the backbone {self.config.adaptation.backbone}"] = self.student.origin[:16]
        for name, teacher in self.teaching.committee.items() if self.teaching.committee else ():
            inputs[f"weights of the teacher {name}"] = weights_hash(teacher)[:16]
        for key in ("weights", "path"):
            place = self.config.student[key]
            files = [Path(place, "student", WEIGHTS), Path(place, WEIGHTS), Path(place)] if place else []
            if file := next((file for file in files if file.is_file()), None):  # once it has begun nobody needs it
                inputs[f"student.{key}"] = sha256_of(file)[:16]
        return inputs

    # --- the data to train on ---------------------------------------------------------------------------------------

    @functools.cached_property
    def _labelled(self) -> Archive:
        """The training images, whose files are listed and checked once for both stages."""
        return build_labelled(self.config)

    def _training_batches(self, stage: str) -> TrainingBatches:
        settings = self.config.stages[stage]
        images = build_training_set(self.config, stage, lambda: self._labelled, self.accelerator.print)
        self.names[stage] = names_hash(images.image_files)
        dataset = self.teaching.seen(stage, images)
        return TrainingBatches(
            dataset,
            settings.batch_size,
            settings.accumulate,
            self.config.seed,
            self.config.data.workers,
            self.accelerator.process_index,
            self.accelerator.num_processes,
            self.config.data.timeout,
            build_skips(self.config.data, self.run.skipped, stage, len(dataset), replaced=True),
        )

"""The training of one stage: the loop of its steps, with losses shown, evaluations and checkpoints between them.

Everything that is random depends on the seed, the stage and the step.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from sak.bundles.change import trained_and_frozen
from sak.config.derived import active_stages, distils, image_size
from sak.config.schema import STAGES
from sak.evaluation.distributed import Agreement, RunningStatistics
from sak.evaluation.evaluate import to_device
from sak.interrupt import StopRequest
from sak.progress import progress_bar
from sak.student import Student
from sak.training import checkpoint, objectives, sharding
from sak.training.batches import TrainingBatches
from sak.training.checkpoint import Progress
from sak.training.compiling import compiled
from sak.training.loss_record import GRADIENT, LossRecord
from sak.training.optimizer import Learner
from sak.training.router_record import TRAINING, RoutingRecord
from sak.training.schedule import learning_rate
from sak.training.task_balance import build_task_balance
from sak.training.teacher_targets import Teaching
from sak.training.tracking import Tracker
from sak.training.validation import Validation
from sak.training.waiting import Waiting


@dataclass
class StageTraining:
    """
    Attributes:
        stage: distill or multitask.
        steps: of the whole stage.
        student: is trained in place.
        validation: evaluates it; None in a run without tasks.
        checkpoints: their directory.
        tracker: shows what happens; None but in the first process.
    """

    stage: str
    steps: int
    config: DictConfig
    student: Student
    batches: TrainingBatches
    teaching: Teaching
    validation: Validation | None
    accelerator: Accelerator
    agreement: Agreement
    checkpoints: Path
    tracker: Tracker | None

    def __post_init__(self):
        self.settings = self.config.stages[self.stage]
        self.routing = RoutingRecord(self.student)

    def train(self, start: int, state: dict | None) -> None:
        """From the step ``start`` to the stage's end.

        Args:
            state: of the checkpoint at ``start``, out of which is taken what is gone on with; None where the stage
                begins.

        Raises:
            UserError: teachers, images or the disk do not do what is asked of them.
            KeyboardInterrupt: the user stopped it; a checkpoint was written.
            FloatingPointError: a loss became infinite or not a number.
        """
        settings, steps = self.settings, self.steps
        self._prepare(state)
        stages = active_stages(self.config)
        progress = progress_bar(
            steps * settings.batch_size,
            f"stage {stages.index(self.stage) + 1}/{len(stages)} {self.stage}",
            done=start * settings.batch_size,
            shown=self.accelerator.is_main_process,
        )
        losses, batches = LossRecord(self.stage, self._mean), Waiting(self.batches.steps(start, steps))
        with StopRequest() as stop, progress:
            for step, micro_batches in enumerate(batches, start=start):
                # First thing after a resume too, if it belongs there.
                if self.validation is not None and self._is_evaluated_before(step):
                    losses.check()
                    self.learner.gather()
                    self.validation.evaluate(self.student, Progress(self.stage, step), self.tracker)
                rate = learning_rate(settings.optim, step, steps, self.batches.steps_per_epoch)
                self.learner.set_rate(rate)
                terms = self._step(micro_batches, step)
                done = Progress(self.stage, step + 1)
                losses.add(done.step, terms)
                progress.update(settings.batch_size)
                if done.step % settings.log_every == 0 or done.step == steps:
                    terms, routing = losses.read(), self._routing()
                    if self.tracker:
                        self._show(self.tracker, done, terms, rate, batches.share(), progress)
                        self.tracker.weights(TRAINING, routing, done)
                stopping = self.agreement.any(stop.made)
                if done.step == steps or stopping or done.step % settings.checkpoint_every == 0:
                    losses.check()  # no checkpoint holds what followed a loss that was not finite
                    self.learner.gather()
                    self._save_checkpoint(done)
                if stopping:
                    raise KeyboardInterrupt(
                        f"stopped after step {done.step} of {steps} of the stage {self.stage}; "
                        "the same command goes on from there"
                    )
        if summary := self.teaching.summary(self.stage):
            self.accelerator.print(summary)
        self.learner.release()

    def _prepare(self, state: dict | None) -> None:
        objectives.choose_trained_weights(self.student, self.stage, distils(self.config, self.stage))
        set_image_size(self.student, self.config, self.stage)
        if self.student.frozen:
            self.accelerator.print(f"{self.stage}: {trained_and_frozen(self.student)}")
        processes = self.accelerator.num_processes
        sharded = sharding.is_sharded(self.config, processes)
        self.learner = Learner(self.student, self.settings.optim, self.accelerator, sharded, state)
        self.objective = self._objective(state)
        model = self.learner.model.train()
        # In the first stage nothing passes a batch norm.
        together = processes if self.stage == "multitask" else 1
        self.statistics = RunningStatistics(model, together, self.accelerator.process_index)
        if self.config.compile:
            images = self.settings.batch_size // (self.settings.accumulate * processes)
            shape = (images, 3, *image_size(self.config, self.stage))
            predicts = self.stage == "multitask"
            self.objective = compiled(self.objective, model, shape, predicts, self.accelerator.autocast)

    def _objective(self, state: dict | None) -> objectives.Objective:
        settings, self.task_balance = self.settings, None
        features = self.teaching.features(self.stage, self.batches)
        if self.stage == "distill":
            features = cast(objectives.Features, features)
            return objectives.distillation(features, settings.loss, settings.teacher_dropping)
        tasks = cast(Validation, self.validation).tasks
        self.task_balance = build_task_balance(
            settings.task_balance,
            {name: task.kind for name, task in tasks.items()},
            settings.task_balance_lr,
            settings.gradnorm_alpha,
            self.student,
            self.accelerator.device,
        )
        if self.task_balance is not None and state:
            self.task_balance.load_state_dict(state.pop("task_balance"))
        return objectives.multitask(
            features,
            tasks,
            settings.loss,
            settings.alpha,
            settings.teacher_dropping,
            settings.balance,
            self.task_balance,
            self.routing.add,
            self.teaching.known(self.stage),
        )

    def _step(self, micro_batches: list[dict], step: int) -> dict[str, Tensor]:
        """One optimizer step. Nothing waits for the device.

        Returns:
            the terms of its loss, averaged over the micro-batches, and the norm of its gradient.
        """
        model = self.learner.model
        self.learner.optimizer.zero_grad()
        self.routing.new_step()
        summed: dict[str, Tensor] = {}
        for number, batch in enumerate(micro_batches):
            # What is random in it depends on nothing that came before, and not on which process computes it: there is
            # no random state to save or restore.
            part = number * self.accelerator.num_processes + self.accelerator.process_index
            torch.manual_seed(_seed(self.config.seed, STAGES.index(self.stage), step, part))
            batch = to_device(batch, self.accelerator.device)
            accumulating = number < len(micro_batches) - 1
            with self.statistics.of_all():
                with self.accelerator.autocast(), self.accelerator.no_sync(model) if accumulating else nullcontext():
                    total, terms = self.objective(model, batch)
                self.accelerator.backward(total / len(micro_batches))
            for name, term in {"total": total, **terms}.items():
                summed[name] = summed.get(name, 0) + term.detach() / len(micro_batches)
        if self.task_balance is not None:
            self.task_balance.step(self._mean)
        return {**summed, GRADIENT: self.learner.step()}

    def _routing(self) -> dict[str, float]:
        """The routers' mean weights of the newest step. All processes must ask."""
        mean = self.routing.mean
        return {} if mean is None else self.routing.named(self._mean(mean))

    def _mean(self, values: Tensor) -> Tensor:
        """Over the processes."""
        return self.accelerator.reduce(values, "mean")

    def _is_evaluated_before(self, step: int) -> bool:
        if self.stage != "multitask" or not self.settings.evaluate_every:
            return False
        return step > 0 and step % self.settings.evaluate_every == 0

    def _save_checkpoint(self, done: Progress) -> None:
        self.accelerator.wait_for_everyone()
        states = self.learner.states()
        if self.accelerator.is_main_process:
            state = {
                "student": self.student.state_dict(),
                **states,
                "standardise": self.teaching.states(),
                "task_balance": self.task_balance.state_dict() if self.task_balance is not None else {},
            }
            checkpoint.save(self.checkpoints, done, state, self.settings.keep_last)

    def _show(
        self, tracker: Tracker, done: Progress, terms: Mapping[str, float], rate: float, waited: float, progress: tqdm
    ) -> None:
        terms = dict(terms)
        gradient = terms.pop(GRADIENT)
        speed = progress.format_dict["rate"] or (progress.n - progress.initial) / max(
            progress.format_dict["elapsed"], 1e-9
        )
        figures = {"learning_rate": rate, GRADIENT: gradient, "images_per_second": speed, "data_wait": waited}
        tracker.scalars({**{f"loss/{name}": value for name, value in terms.items()}, **figures}, done)
        tasks = {name.removeprefix("task/"): value for name, value in terms.items() if name.startswith("task/")}
        distilled = [value for name, value in terms.items() if name.startswith("distill/")]
        shown = {"loss": terms["total"], **tasks, **({"distill": sum(distilled)} if distilled else {})}
        postfix = {name: f"{value:.3g}" for name, value in shown.items()}
        progress.set_postfix({**postfix, "data wait": f"{waited:.0%}"}, refresh=False)


def set_image_size(student: Student, config: DictConfig, stage: str) -> None:
    """Make the student's position embedding that of a stage's images."""
    if "stem" not in student.frozen:  # which resizes it on the fly, and keeps it
        student.set_image_size(image_size(config, stage))


def _seed(*numbers: int) -> int:
    """64 bits that differ wherever one of the numbers does."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])

"""The training of one stage of a student: what its loop needs beside the steps."""

from dataclasses import dataclass
from typing import cast

from omegaconf import DictConfig
from torch import nn

from sak.bundles.change import trained_and_frozen
from sak.config.derived import distils, image_size
from sak.student import Student
from sak.training import objectives
from sak.training.checkpoint import Progress
from sak.training.compiling import compiled
from sak.training.loop import Loop
from sak.training.router_record import TRAINING, RoutingRecord
from sak.training.task_balance import build_task_balance
from sak.training.teacher_targets import Teaching
from sak.training.validation import Validation


@dataclass
class StageTraining(Loop):
    """
    Attributes:
        validation: evaluates the student; None in a run without tasks.
    """

    network: Student
    teaching: Teaching
    validation: Validation | None

    def __post_init__(self):
        super().__post_init__()
        self.student = self.network
        self.routing = RoutingRecord(self.student)
        # In the first stage nothing passes a batch norm, and there is nothing to evaluate.
        self.predicts = self.stage == "multitask"
        if self.predicts and self.validation and self.settings.evaluate_every:  # 0 is an older form of null
            self.evaluate_every = self.settings.evaluate_every

    def prepare(self, state: dict | None) -> objectives.Objective:
        objectives.choose_trained_weights(self.student, self.stage, distils(self.config, self.stage))
        set_image_size(self.student, self.config, self.stage)
        if self.student.frozen:
            self.accelerator.print(f"{self.stage}: {trained_and_frozen(self.student)}")
        processes = self.accelerator.num_processes
        model = self.learn(state, together=processes if self.predicts else 1)
        objective = self._objective(state)
        return self._compiled(objective, model, processes) if self.config.compile else objective

    def evaluate(self, done: Progress) -> None:
        cast(Validation, self.validation).evaluate(self.student, done, self.tracker)

    def show(self, done: Progress) -> None:
        mean = self.routing.mean  # of the routers' weights in the newest step
        weights = {} if mean is None else self.routing.named(self.mean(mean))
        if self.tracker:
            self.tracker.weights(TRAINING, weights, done)

    def begin_step(self) -> None:
        self.routing.new_step()

    def end_step(self) -> None:
        if self.task_balance is not None:
            self.task_balance.step(self.mean)

    def states(self) -> dict:
        balance = self.task_balance.state_dict() if self.task_balance is not None else {}
        return {"standardise": self.teaching.states(), "task_balance": balance}

    def finish(self) -> None:
        if summary := self.teaching.summary(self.stage):
            self.accelerator.print(summary)

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

    def _compiled(self, objective: objectives.Objective, model: nn.Module, processes: int) -> objectives.Objective:
        images = self.settings.batch_size // (self.settings.accumulate * processes)
        shape = (images, 3, *image_size(self.config, self.stage))
        return compiled(objective, model, shape, self.predicts, self.accelerator.autocast)


def set_image_size(student: Student, config: DictConfig, stage: str) -> None:
    """Make the student's position embedding that of a stage's images."""
    if "stem" not in student.frozen:  # which resizes it on the fly, and keeps it
        student.set_image_size(image_size(config, stage))

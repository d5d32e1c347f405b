"""The evaluations of a run: metrics, router weights and pictures of the student as far as it has come."""

from pathlib import Path

from accelerate import Accelerator
from omegaconf import DictConfig

from sak import data
from sak.config.derived import evaluation_batch
from sak.data.faulty_images import build_skips
from sak.evaluation.constants import KEPT, kept_constants
from sak.evaluation.evaluate import Evaluation, evaluate
from sak.evaluation.panel import Panel
from sak.metrics import Metrics
from sak.student import Student
from sak.tasks import Task
from sak.training import sharding
from sak.training.best import keep_best
from sak.training.checkpoint import Progress
from sak.training.run_directory import RunDirectory
from sak.training.tracking import Tracker


class Validation:
    """On the validation images, as the config has them.

    Args:
        tasks: to evaluate.

    Raises:
        UserError: the images are not there.
    """

    def __init__(self, config: DictConfig, run: RunDirectory, tasks: dict[str, Task], accelerator: Accelerator):
        self.config, self.run, self.tasks, self.accelerator = config, run, tasks, accelerator
        self.images = data.build(config.data, "val")
        self.skips = build_skips(config.data, run.skipped, "val", len(self.images), replaced=False)
        self.panel = Panel(self.images, tasks, accelerator.device, skipping=self.skips is not None)

    def evaluate(self, student: Student, done: Progress, tracker: Tracker | None) -> Evaluation:
        """Evaluate the student, and keep it if it is the best so far. All processes must ask.

        Args:
            tracker: shows it; None but in the first process.

        Raises:
            UserError: an image or a label cannot be read.
            FloatingPointError: a prediction is not finite.
        """
        if self.skips and self.accelerator.is_main_process:
            self.skips.forget()
        self.accelerator.wait_for_everyone()
        student.to(self.accelerator.device)
        evaluation = evaluate(student, self.tasks, self.images, **self._how)
        if tracker:
            if metric := self.config.stages.multitask.keep_best:
                keep_best(self.run.student_best, metric, self.tasks, evaluation.metrics, student, done.step)
            tracker.evaluation(evaluation, student.sources, student.levels, done)
            tracker.figure("predictions", self.panel.draw(student), self.run.panels, done)
        if sharding.is_sharded(self.config, self.accelerator.num_processes):
            student.cpu()
        return evaluation

    def constants(self) -> Metrics:
        """The metrics of the best constant predictions. All processes must ask."""
        return kept_constants(Path(self.config.output) / KEPT, self.tasks, self.images, **self._how)

    @property
    def _how(self) -> dict:
        """To go through the images."""
        return {
            "batch_size": evaluation_batch(self.config, self.accelerator.num_processes),
            "workers": self.config.data.workers,
            "accelerator": self.accelerator,
            "timeout": self.config.data.timeout,
            "skips": self.skips,
        }

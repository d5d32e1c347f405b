"""One cell of a probe: a head is trained on one frozen model's features and one task, then evaluated."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from sak.config.schema import plain
from sak.data.loading import Samples
from sak.errors import UserError
from sak.evaluation.evaluate import Keep, evaluate, to_device
from sak.research.probing.head import ProbeHead
from sak.student import StudentOutput
from sak.tasks import Task
from sak.training.batches import TrainingBatches
from sak.training.loss_record import GRADIENT, LossRecord
from sak.training.optimizer import Learner
from sak.training.schedule import learning_rate


class ProbedStudent(nn.Module):
    """A head on one task, asked as a student is: with a batch's features in place of its images."""

    def __init__(self, head: ProbeHead, task: str, image_size: tuple[int, int]):
        super().__init__()
        self.head, self.task, self.image_size = head, task, image_size

    def forward(self, levels: Sequence[Tensor]) -> StudentOutput:
        """Levels (B, D, h, w) -> StudentOutput."""
        return StudentOutput({self.task: self.head(levels, self.image_size)}, {}, {})


def build_head(config: DictConfig, dims: Sequence[int], task: Task) -> ProbeHead:
    """
    Raises:
        UserError: there is no such head.
    """
    settings = config.probe
    options = plain(settings.head.options)
    try:
        return ProbeHead(dims, settings.width, task.channels, settings.head.type, options)
    except ValueError as error:
        raise UserError(f"probe.head: {error}") from error


def probe_cell(
    config: DictConfig,
    model: str,
    task: Task,
    dims: Sequence[int],
    sets: Mapping[str, Samples],
    events: Path,
    accelerator: Accelerator,
    progress: tqdm,
    keep: Keep | None = None,
) -> dict[str, float]:
    """Train a head from the seed on, and evaluate it.

    Args:
        model: its name.
        dims: D of its levels.
        sets: {split: samples with the model's features as "image", and the task's label}.
        events: directory for TensorBoard; what a start that was stopped has left there is replaced.
        progress: is moved on by the images trained on.
        keep: is handed the predictions that are evaluated, as of `evaluate`.

    Raises:
        FloatingPointError: a loss or its gradient is not finite, in any step.
    """
    settings = config.probe
    torch.manual_seed(config.seed)
    student = ProbedStudent(build_head(config, dims, task), task.name, tuple(config.data.image_size))
    learner = Learner(student, settings.optim, accelerator, sharded=False, state=None)
    learner.model.train()
    batches = TrainingBatches(sets["train"], settings.batch_size, 1, config.seed, config.data.workers, rank=0, world=1)
    losses = LossRecord(f"probing {task.name} on {model}", advice="try a lower probe.optim.lr")
    shutil.rmtree(events, ignore_errors=True)
    with SummaryWriter(events) as writer:
        for step, (batch,) in enumerate(batches.steps(0, settings.steps), start=1):
            learner.set_rate(learning_rate(settings.optim, step - 1, settings.steps, batches.steps_per_epoch))
            batch = to_device(batch, accelerator.device)
            with accelerator.autocast():
                output = learner.model(batch["image"])
            loss = task.loss(output.predictions[task.name], batch[task.name])
            learner.optimizer.zero_grad()
            accelerator.backward(loss)
            losses.add(step, {task.name: loss.detach(), GRADIENT: learner.step()})
            progress.update(settings.batch_size)
            if step % settings.log_every == 0 or step == settings.steps:
                value = losses.read()[task.name]
                writer.add_scalar(f"probe/loss/{task.name}", value, step)
                progress.set_postfix(loss=f"{value:.3g}", refresh=False)
        learner.release()
        found = evaluate(
            student, {task.name: task}, sets["val"], settings.batch_size, config.data.workers, accelerator, keep
        ).metrics[task.name]
        for measure, value in found.items():
            writer.add_scalar(f"probe/metrics/{task.name}/{measure}", value, settings.steps)
    return found

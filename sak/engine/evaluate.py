"""Judge a student, or a constant prediction, on a data set.

Shapes: B batch, C channels of a task, H,W image, S sources of the routers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from sak.engine import loading
from sak.tasks import HIGHER, Task

Metrics = dict[str, dict[str, float]]  # {task: {metric: value}}


@dataclass
class Evaluation:
    """``metrics`` per task, and ``routing`` {task: [per level (images, S)]}, the weights of every image."""

    metrics: Metrics
    routing: dict[str, list[Tensor]]


def evaluate(
    student: nn.Module,
    tasks: Mapping[str, Task],
    dataset: Dataset,
    batch_size: int,
    workers: int,
    accelerator: Accelerator,
) -> Evaluation:
    """All metrics of the student on all images, each seen once by one of the processes."""
    training = student.training
    student.eval()
    metrics = {name: task.new_metric().to(accelerator.device) for name, task in tasks.items()}
    routing: dict[str, list[list[Tensor]]] = {}
    for batch in _batches(dataset, batch_size, workers, accelerator, "evaluate"):
        with torch.no_grad(), accelerator.autocast():
            output = student(batch["image"])
        for name, task in tasks.items():
            metrics[name].update(task.predict(output.predictions[name].float()), task.truth(batch))
        for name, levels in output.routing.items():
            routing.setdefault(name, []).append([weights.float().cpu() for weights in levels])
    student.train(training)
    return Evaluation(
        metrics={name: task.measured(metrics[name]) for name, task in tasks.items()},
        routing={
            name: [torch.cat(weights) for weights in zip(*gather_object(batches), strict=True)]
            for name, batches in routing.items()
        },
    )


def constant_predictions(
    tasks: Mapping[str, Task], dataset: Dataset, batch_size: int, workers: int, accelerator: Accelerator
) -> Metrics:
    """Each metric of the best constant prediction: what can be had on this data set without looking at the images."""
    labels: dict[str, list[Tensor]] = {name: [] for name in tasks}
    for batch in _batches(dataset, batch_size, workers, accelerator, "constants", shard=False):
        for name in tasks:
            labels[name].append(_thinned_out(batch[name]).cpu())
    candidates = {
        name: task.constants(label for batch in labels[name] for label in batch).to(accelerator.device)
        for name, task in tasks.items()
    }
    judged = {
        name: [(constant, task.new_metric().to(accelerator.device)) for constant in candidates[name]]
        for name, task in tasks.items()
    }
    for batch in _batches(dataset, batch_size, workers, accelerator, "constants"):
        for name, task in tasks.items():
            shape = (len(batch["image"]), task.channels, *batch["image"].shape[-2:])
            for constant, metric in judged[name]:
                output = constant.view(1, -1, 1, 1).expand(shape)
                metric.update(task.predict(output), task.truth(batch))
    best: Metrics = {}
    for name, task in tasks.items():
        values = [task.measured(metric) for _, metric in judged[name]]
        best[name] = {
            measure: (max if direction == HIGHER else min)(value[measure] for value in values)
            for measure, direction in task.measures.items()
        }
    return best


def _thinned_out(labels: Tensor, pixels: int = 128 * 128) -> Tensor:
    """At most about ``pixels`` of each label map (..., H, W): the statistics of a whole set must fit in memory."""
    stride = max(1, round((labels.shape[-1] * labels.shape[-2] / pixels) ** 0.5))
    return labels[..., ::stride, ::stride]


def _batches(
    dataset: Dataset, batch_size: int, workers: int, accelerator: Accelerator, title: str, shard: bool = True
) -> Iterator[dict]:
    indices = list(range(len(dataset)))
    if shard:
        indices = indices[accelerator.process_index :: accelerator.num_processes]
    cut = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    progress = tqdm(
        total=len(indices), desc=title, unit="img", leave=False, disable=not accelerator.is_main_process, mininterval=1
    )
    with progress:
        for batch in loading.load(dataset, cut, workers):
            yield to_device(batch, accelerator.device)
            progress.update(len(batch["image"]))


def to_device(batch: Mapping, device: torch.device) -> dict:
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value for key, value in batch.items()
    }

"""Evaluate a student on a data set.

Shapes: B batch, C channels of a task, H,W image, S sources of the routers.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from sak.data import loading
from sak.data.faulty_images import Skips
from sak.data.transforms import finish
from sak.metrics import Metrics
from sak.progress import progress_bar
from sak.tasks import Task

Keep = Callable[[str, Tensor, Mapping], None]  # (task, its predictions of a batch, the batch)


@dataclass
class Evaluation:
    """``metrics`` per task, and ``routing`` {task: [per level (images, S)]}, the weights of every image."""

    metrics: Metrics
    routing: dict[str, list[Tensor]]


def evaluate(
    student: nn.Module,
    tasks: Mapping[str, Task],
    dataset: loading.Samples,
    batch_size: int,
    workers: int,
    accelerator: Accelerator,
    keep: Keep | None = None,
    timeout: int = loading.TIMEOUT,
    skips: Skips | None = None,
) -> Evaluation:
    """All metrics of the student on all images, each seen once by one of the processes.

    The result is the same to the bit for any number of processes: they share out whole batches, so that each is
    computed as one process would compute it (on CPUs with as many threads), and metrics add up integers.

    Args:
        workers: processes that load images, and as many that match boundaries.
        keep: is handed every task's predictions (``Task.predict``) of every batch of this process.
        timeout, skips: see ``loading.load``; skipped images are left out of all metrics.

    Raises:
        UserError: an image or a label cannot be read.
        FloatingPointError: a prediction is not finite.
    """
    training = student.training
    student.eval()
    metrics = {name: task.new_metric(workers).to(accelerator.device) for name, task in tasks.items()}
    routing: list[tuple[int, dict[str, list[Tensor]]]] = []
    load = functools.partial(loading.load, workers=workers, timeout=timeout, skips=skips)
    for number, batch in batches_of(dataset, batch_size, load, accelerator, "evaluate"):
        with torch.no_grad(), accelerator.autocast():
            output = student(batch["image"])
        for name, task in tasks.items():
            raw = output.predictions[name].float()
            if not is_finite(raw):
                raise FloatingPointError(f"the student's {name} of {', '.join(batch['name'])} is not finite")
            prediction = task.predict(raw)
            metrics[name].update(prediction, task.truth(batch))
            if keep:
                keep(name, prediction, batch)
        weights = {name: [level.float().cpu() for level in levels] for name, levels in output.routing.items()}
        routing.append((number, weights))
    student.train(training)
    in_order = [weights for _, weights in sorted(gather_object(routing), key=lambda item: item[0])]
    return Evaluation(
        metrics={name: task.measured(metrics[name]) for name, task in tasks.items()},
        routing={
            name: [torch.cat(level) for level in zip(*(weights[name] for weights in in_order), strict=True)]
            for name in in_order[0]
        },
    )


def is_finite(values: Tensor) -> bool:
    # What is not finite makes the sum so, and a sum is quick; one of finite values may overflow.
    return bool(values.sum().isfinite() or values.isfinite().all())


def batches_of(
    dataset: loading.Samples,
    batch_size: int,
    load: Callable[..., Iterator[dict | None]],
    accelerator: Accelerator,
    title: str,
    shard: bool = True,
) -> Iterator[tuple[int, dict]]:
    """(number, batch) of those batches of the data set that are this process's; all of them without ``shard``."""
    indices = range(len(dataset))
    cut = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    numbers = range(len(cut))
    if shard:
        numbers = numbers[accelerator.process_index :: accelerator.num_processes]
    total = sum(len(cut[number]) for number in numbers)
    with progress_bar(total, title, shown=accelerator.is_main_process, leave=False) as progress:
        for number, batch in zip(numbers, load(dataset, [cut[n] for n in numbers]), strict=True):
            if batch is not None:
                yield number, to_device(batch, accelerator.device)
            progress.update(len(cut[number]))


def to_device(batch: Mapping, device: torch.device) -> dict:
    """A batch of `loading.load` with its tensors, those in lists too, on the device, and its images in [0, 1]."""

    def moved(value: object) -> object:
        if isinstance(value, list):
            return [moved(part) for part in value]
        return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value

    return finish({key: moved(value) for key, value in batch.items()})

"""What a training step of each method costs: weights, seconds, memory; each method in a process of its own.

A step is forward, losses, backward and AdamW, on noise in the shapes of the config's batches, first with the heads and
losses of the config's tasks, then without any: the maps' mean square is the loss, and what is left is the method.
"""

import contextlib
import dataclasses
import gc
import multiprocessing
import re
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import cast

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from sak import config as configuration
from sak.adaptation import Adapted
from sak.adaptation.frozen import Frozen
from sak.bundles.build import build_committee, build_student, build_tasks
from sak.config.derived import distils, image_size, taught_by
from sak.preflight.plan import count, empty_batch
from sak.tasks import Task
from sak.training import objectives
from sak.training.optimizer import adamw

ADDING = ("losa", "lora", "adapter")  # methods whose trained weights are no part of the backbone
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclasses.dataclass(frozen=True)
class Step:
    """
    Attributes:
        seconds: the median over the steps; of a CPU those that its cores were at work for it, all together.
        peak: bytes: of the GPU what was allocated at once; of a CPU what the process had in memory, libraries and all.
    """

    seconds: float
    peak: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one method.

    Attributes:
        heads: their weights.
        trained: weights that learn in or beside the backbone; of a student all but its heads.
        backbone: the backbone's weights; of a student those of its stem.
        step: as it trains.
        alone: without heads; None of a student, whose routers are a part of them.
        cached, cached_alone: with the backbone's features at hand; None where it is not frozen.
    """

    heads: int
    trained: int
    backbone: int
    step: Step
    alone: Step | None = None
    cached: Step | None = None
    cached_alone: Step | None = None

    @classmethod
    def of(cls, content: Mapping) -> "Cost":
        """From its form in JSON."""
        steps = {key: Step(**value) for key, value in content.items() if isinstance(value, dict)}
        return cls(**{**content, **steps})


def measured(file: Path, steps: int, student: bool = False) -> Cost:
    """The cost of a config's step, in a process of its own: memory that another has used would hide what is used here.

    Args:
        file: of the resolved config.
        steps: that are timed, after one that is not.
        student: whether it trains a student.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, file, steps, student).result()


def _measured(file: Path, steps: int, student: bool) -> Cost:
    config = configuration.load(file)
    tasks = build_tasks(config.data)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    committee = build_committee(config, taught_by(config)).to(device) if taught_by(config) else None
    model = build_student(config, tasks, committee.dims if committee else {})
    teaches = distils(config, "multitask")
    objectives.choose_trained_weights(model, "multitask", distils=teaches)
    heads = count(model.heads)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad) - heads
    added = trained if config.stages.multitask.method in ADDING else 0
    model.to(device).train()
    batch = _noise(config, tasks, device)
    features = objectives.of_images(committee) if committee is not None and teaches else None
    settings = config.stages.multitask
    objective = objectives.multitask(features, tasks, settings.loss, settings.alpha)

    def step(loss: Callable[[], Tensor]) -> Step:
        return _timed(loss, model, settings.optim, steps, device)

    found: dict[str, Step] = {}
    # The cheapest first: what an allocator holds back would count for those that follow.
    if isinstance(model, Adapted):
        maps = [] if model.stem.learned else Frozen.forward(cast(Frozen, model.stem), batch["image"])
        model.heads.requires_grad_(False)
        if maps:
            found["cached_alone"] = step(lambda: _square(model.stem(batch["image"], maps)))
        found["alone"] = step(lambda: _square(model.stem(batch["image"])))
        model.heads.requires_grad_(True)
        if maps:
            with_maps = objectives.multitask(None, tasks, settings.loss, settings.alpha, known=lambda _: {"": maps})
            found["cached"] = step(lambda: with_maps(model, batch)[0])
    found["step"] = step(lambda: objective(model, batch)[0])
    return Cost(heads, trained, count(model.stem) - added, **found)


def _square(levels: Sequence[Tensor]) -> Tensor:
    return torch.stack([level.square().mean() for level in levels]).sum()


def _timed(loss: Callable[[], Tensor], model: nn.Module, optim: DictConfig, steps: int, device: torch.device) -> Step:
    """Of forward, backward and AdamW; where nothing learns, of the forward pass alone."""
    trained = any(weight.requires_grad for weight in model.parameters())
    optimizer = adamw(model, optim) if trained else None
    # Of a CPU the process's own time: what else is at work on the machine does not count.
    seconds, clock = [], time.perf_counter if device.type == "cuda" else time.process_time
    gc.collect()
    _reset_peak(device)
    for _ in range(steps + 1):
        begun = clock()
        total = loss()
        if optimizer is not None:
            total.backward()
            optimizer.step()
            optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - begun)
    return Step(statistics.median(seconds[1:]), _peak(device))


def _noise(config: DictConfig, tasks: Mapping[str, Task], device: torch.device) -> dict[str, Tensor]:
    """A batch of the second stage, whose labels are all there."""
    settings = config.stages.multitask
    batch = empty_batch(settings.batch_size // settings.accumulate, image_size(config, "multitask"), tasks)
    torch.manual_seed(0)
    for name, values in batch.items():
        if values.is_floating_point():
            values.uniform_(0.1, 0.9)
        else:
            values.random_(0, max(2, tasks[name].channels))
    return {name: values.to(device) for name, values in batch.items()}


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):  # of other systems, and where that is forbidden
            RESET.write_text("5")


def _peak(device: torch.device) -> int:
    """Bytes since the reset; of systems other than Linux since the process began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    if STATUS.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())):
        return 1024 * int(found[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

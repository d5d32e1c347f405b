"""Training at the paper's ViT-B size on a GPU: images a second, memory, and the share of what the GPU can do."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.apart import alone
from benchmarks.cache import filled, paper_settings
from benchmarks.paper import SIZE, batch, settings, students
from benchmarks.timing import table
from sak.bundles.build import build_committee, build_tasks
from sak.distillation.cached_features import Views
from sak.errors import UserError
from sak.training import objectives
from sak.training.compiling import compiled
from sak.training.optimizer import adamw
from sak.training.sharding import sharded

IMAGES, STEPS, WARM_UP = 8, 10, 3
CACHED = 16  # images whose features are read
SIDE = 8192  # of the square matrices


class Form(NamedTuple):
    """How a step is computed."""

    title: str
    precision: str = "bf16"
    compile: bool = False
    teachers: bool = False
    wrapped: str = ""  # ddp or fsdp, in a group of one process

    def autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")


FORMS = (
    Form("fp32, products in TF32", precision="fp32"),
    Form("bf16"),
    Form("bf16, compiled", compile=True),
    Form("bf16, DDP", wrapped="ddp"),
    Form("bf16, FSDP", wrapped="fsdp"),
    Form("bf16, with teachers", teachers=True),
    Form("bf16, with teachers, compiled", teachers=True, compile=True),
)


class Measured(NamedTuple):
    """
    Attributes:
        images: a second.
        peak: bytes allocated at most.
        operations: a second, of matrix products, convolutions and attention.
    """

    images: float
    peak: int
    operations: float


def run() -> str:
    card, rates = alone(limits)
    limit = rates[torch.bfloat16]
    rows = []
    for form in FORMS:
        found = alone(partial(measured, form, torch.device("cuda"), SIZE, IMAGES))
        share = f"{found.operations / limit:.0%}"
        rows.append((form.title, f"{found.images:.1f}", f"{found.peak / 2**30:.1f}", share))
    read = alone(partial(cache_rate, torch.device("cuda")))
    header = ("step", "images/s", "peak, GiB", "of the bf16 matrix rate")
    return (
        f"{card}: matrix products at {limit / 1e12:.0f} TFLOP/s in bf16, {rates[torch.float32] / 1e12:.0f} in TF32.\n\n"
        f"ViT-B, three teachers, five tasks, {IMAGES} images of {SIZE} x {SIZE}, forward, backward and AdamW, {STEPS} "
        f"steps after {WARM_UP}; each in a process of its own.\n\n{table(header, rows)}\n\nFeatures of the three "
        "teachers for the first stage, from the cache's files into the GPU's memory by one process: "
        f"{read:.0f} images a second."
    )


def limits() -> tuple[str, dict[torch.dtype, float]]:
    """The GPU's name, and the operations a second of large matrix products.

    Raises:
        UserError: there is no GPU.
    """
    if not torch.cuda.is_available():
        raise UserError("gpu measures on a GPU, and this machine has none that torch can use; choose other sections")
    torch.set_float32_matmul_precision("high")
    return torch.cuda.get_device_name(), {dtype: matrix_rate(dtype) for dtype in (torch.float32, torch.bfloat16)}


def matrix_rate(dtype: torch.dtype) -> float:
    one, other = torch.randn(2, SIDE, SIDE, device="cuda").to(dtype)
    return STEPS * 2 * SIDE**3 / taken(lambda: one @ other, torch.device("cuda"))


def taken(function: Callable[[], object], device: torch.device) -> float:
    """Seconds of `STEPS` calls, after some that do not count."""
    for _ in range(WARM_UP):
        function()
    synchronise(device)
    start = time.perf_counter()
    for _ in range(STEPS):
        function()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measured(form: Form, device: torch.device, size: int, images: int) -> Measured:
    torch.set_float32_matmul_precision("high")
    student = students(size)[0].to(device)
    objectives.choose_trained_weights(student, "multitask", distils=form.teachers)
    content = {name: maps.to(device) for name, maps in batch(size, images).items()}
    with FlopCounterMode(display=False) as counter:  # which sees neither compiled code nor what others wrap
        training_step(form._replace(compile=False), student, content)()
    step = training_step(form, wrapped(student, form.wrapped, device), content)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = taken(step, device)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    if form.wrapped:
        distributed.destroy_process_group()
    return Measured(STEPS * images / seconds, peak, STEPS * counter.get_total_flops() / seconds)


def training_step(form: Form, model: nn.Module, content: dict[str, Tensor]) -> Callable[[], None]:
    stage, device = settings().stages.multitask, content["image"].device
    features = objectives.of_images(build_committee(settings()).to(device)) if form.teachers else None
    objective = objectives.multitask(features, build_tasks(settings().data), stage.loss, stage.alpha)
    autocast = partial(form.autocast, device)
    if form.compile:
        objective = compiled(objective, model, tuple(content["image"].shape), True, autocast)
    optimizer = adamw(model, stage.optim)

    def step() -> None:
        with autocast():
            total, _ = objective(model, content)
        total.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def wrapped(student: nn.Module, how: str, device: torch.device) -> nn.Module:
    """The student as several processes train it, in a group of this one alone."""
    if not how:
        return student
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
    return sharded(student, device) if how == "fsdp" else DistributedDataParallel(student)


def cache_rate(device: torch.device) -> float:
    """Images a second whose features are read from the cache's files, which the system holds in memory."""
    with tempfile.TemporaryDirectory() as folder:
        _, dataset, cached = filled(paper_settings(Path(folder), CACHED), device.type)
        views = Views(dataset, 1, cached.caches)

        def read() -> None:
            for index in range(CACHED):
                sample = views[index]
                records = {name: sample[f"cache/{name}"][None].to(device) for name in cached.caches}
                for name, cache in cached.caches.items():
                    cache.decode(records[name])

        return STEPS * CACHED / taken(read, device)

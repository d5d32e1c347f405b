"""A student in PyTorch, compiled, and exported: latency of one image and throughput of a batch."""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import onnx
import torch

from benchmarks.apart import alone
from benchmarks.paper import LEVELS, SIZE, STEM, TASKS, TEACHERS, WIDTH
from benchmarks.timing import seconds, table
from sak.deploy.export import export, quantised
from sak.deploy.exported import OnnxStudent, photographs
from sak.evaluation.distributed import keep_freed
from sak.student import Student


class Size(NamedTuple):
    """Of a student whose speed does not depend on its weights: how it is built, and how it is measured."""

    title: str
    stem: str
    stem_options: dict
    image: int
    widths: dict[str, int]
    levels: tuple[int, ...]
    batch: int
    rounds: int


SIZES = (
    Size(
        "The miniature's student",
        "vit_tiny_patch16_384",
        {"patch_size": 8, "embed_dim": 128, "depth": 8, "num_heads": 4, "mlp_ratio": 3},
        image=128,
        widths={"dinov2": 128, "clip": 96, "sam": 96},
        levels=(1, 3, 5, 7),
        batch=16,
        rounds=7,
    ),
    Size("A ViT-B student", STEM, {}, SIZE, dict.fromkeys(TEACHERS, WIDTH), LEVELS, batch=4, rounds=2),
)


def run() -> str:
    return "\n\n".join(alone(partial(compared, size)) for size in SIZES)


def compared(size: Size) -> str:
    keep_freed()
    torch.manual_seed(0)
    teachers = {name: [width] * len(size.levels) for name, width in size.widths.items()}
    shape = [size.image, size.image]
    student = Student(size.stem, shape, TASKS, teachers, size.levels, stem_options=size.stem_options).eval()
    student.drop_aligners()
    compiled = torch.compile(student)
    forms: dict[str, Callable] = {
        "PyTorch": student,
        "PyTorch, semseg alone": partial(student, tasks=("semseg",)),
        "PyTorch, bf16": in_bf16(student),
        "compiled": compiled,
        "compiled, bf16": in_bf16(compiled),
    }
    with tempfile.TemporaryDirectory() as folder:
        plain, small = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        export(student, plain, dynamic=True)
        onnx.save_model(quantised(onnx.load(plain)), small)
        forms |= {"ONNX fp32": OnnxStudent(plain), "ONNX int8": OnnxStudent(small)}
        sizes = {"ONNX fp32": plain.stat().st_size, "ONNX int8": small.stat().st_size}
    times: dict[tuple[str, int], list[float]] = {(name, count): [] for count in (1, size.batch) for name in forms}
    with torch.inference_mode():
        for count in (1, size.batch):
            images = photographs(count, (size.image, size.image))
            for turn in range(size.rounds + 1):
                for name, form in forms.items():
                    taken = seconds(partial(form, images), time.process_time)
                    if turn:  # the first compiles
                        times[name, count].append(taken)
    rows = []
    for name in forms:
        one, many = (statistics.median(times[name, count]) for count in (1, size.batch))
        stored = f"{sizes[name] / 2**20:.1f}" if name in sizes else ""
        rows.append([name, f"{1000 * one:.1f}", f"{size.batch / many:.3g}", stored])
    return (
        f"{size.title}, all five tasks if not said otherwise, {size.image} x {size.image}, on CPUs; processor time, "
        f"all forms in turn, medians of {size.rounds} rounds.\n\n"
        f"{table(['form', 'ms of one image', f'images/s at {size.batch}', 'file, MiB'], rows)}"
    )


def in_bf16(student: Callable) -> Callable:
    def call(images: torch.Tensor) -> object:
        with torch.autocast("cpu", torch.bfloat16):
            return student(images)

    return call

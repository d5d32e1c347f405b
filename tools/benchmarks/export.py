"""A student in PyTorch, compiled, and exported: latency of one image and throughput of a batch."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import torch

from benchmarks.timing import seconds, table
from sak.deploy.export import export, quantised
from sak.deploy.exported import OnnxStudent, photographs
from sak.student import Student

ROUNDS, BATCH = 7, 16
TASKS = {"semseg": 21, "human_parts": 7, "saliency": 2, "normals": 3, "edge": 1}
TEACHERS = {"dinov2": [144] * 4, "clip": [128] * 4, "sam": [128] * 4}


def run() -> str:
    """Of the miniature's student, whose speed does not depend on its weights."""
    options = {"patch_size": 8, "embed_dim": 128, "depth": 8, "num_heads": 4}
    student = Student("vit_tiny_patch16_384", [96, 96], TASKS, TEACHERS, [1, 3, 5, 7], stem_options=options).eval()
    student.drop_aligners()
    forms: dict[str, Callable] = {"PyTorch": student, "compiled": torch.compile(student)}
    with tempfile.TemporaryDirectory() as folder:
        plain, small = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        export(student, plain, dynamic=True)
        onnx.save_model(quantised(onnx.load(plain)), small)
        forms |= {"ONNX fp32": OnnxStudent(plain), "ONNX int8": OnnxStudent(small)}
        sizes = {"ONNX fp32": plain.stat().st_size, "ONNX int8": small.stat().st_size}
    times: dict[tuple[str, int], list[float]] = {(name, count): [] for count in (1, BATCH) for name in forms}
    with torch.inference_mode():
        for count in (1, BATCH):
            images = photographs(count, (96, 96))
            for turn in range(ROUNDS + 1):
                for name, form in forms.items():
                    taken = seconds(lambda form=form, images=images: form(images), time.process_time)
                    if turn:  # the first compiles
                        times[name, count].append(taken)
    rows = []
    for name in forms:
        one, many = (statistics.median(times[name, count]) for count in (1, BATCH))
        size = f"{sizes[name] / 2**20:.1f}" if name in sizes else ""
        rows.append([name, f"{1000 * one:.1f}", f"{BATCH / many:.1f}", size])
    header = ["form", "ms of one image", f"images/s at {BATCH}", "file, MiB"]
    return (
        "The miniature's student, all five tasks, 96 x 96, on CPUs; processor time, all forms in turn, medians of "
        f"{ROUNDS} rounds.\n\n{table(header, rows)}"
    )

"""Evaluating a student on images: the library's forward pass and metrics against the plain reference and loops."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.metrics import PlainAngularError, PlainIoU, PlainMaxF
from benchmarks.paper import RATIO_HEADER, SIZE, TASKS, batch, in_bf16, in_turn, ratio_row, settings, students
from benchmarks.timing import table
from sak.bundles.build import build_tasks

ROUNDS = 2
LOOPS: dict[str, Callable[[], object]] = {
    "semseg": lambda: PlainIoU(TASKS["semseg"]),
    "human_parts": lambda: PlainIoU(TASKS["human_parts"]),
    "saliency": PlainMaxF,
    "normals": PlainAngularError,
}


def run() -> str:
    tasks = {name: task for name, task in build_tasks(settings().data).items() if name in LOOPS}
    ours, plain = (student.eval() for student in students())
    content = batch(SIZE)
    metrics = {name: task.new_metric() for name, task in tasks.items()}
    loops = {name: new() for name, new in LOOPS.items()}

    def predictions(student: nn.Module) -> dict[str, Tensor]:
        with torch.no_grad():
            output = student(content["image"])
        return output[0] if isinstance(output, tuple) else output.predictions

    def evaluate_all(student: nn.Module, meters: dict) -> None:
        outputs = predictions(student)
        for name, task in tasks.items():
            meters[name].update(task.predict(outputs[name]), content[name])

    forward = in_turn(lambda: predictions(ours), lambda: predictions(plain), ROUNDS)
    whole = in_turn(lambda: evaluate_all(ours, metrics), lambda: evaluate_all(plain, loops), ROUNDS)
    faster = in_turn(in_bf16(lambda: predictions(ours)), lambda: predictions(plain), ROUNDS)
    rows = [
        ratio_row("forward", forward, 1),
        ratio_row("forward, ours in bf16", faster, 1),
        ratio_row("forward, predictions, metrics", whole, 1),
    ]
    return (
        f"ViT-B, one image of {SIZE} x {SIZE}, float32; processor seconds, {ROUNDS} rounds in turn, medians. All tasks "
        "are predicted; the metrics are those of all but boundaries, whose matching has a section of its own.\n\n"
        f"{table(RATIO_HEADER, rows)}"
    )

"""Evaluating a student on images: the library's forward pass and metrics against the plain reference and loops."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.apart import Work, in_turn
from benchmarks.metrics import PlainAngularError, PlainIoU, PlainMaxF
from benchmarks.paper import IN_TURN, RATIO_HEADER, SIZE, TASKS, batch, ratio_rows, settings, students
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
    content = batch(SIZE)

    def predicting(place: int) -> Work:
        """A forward pass of ours or of the plain form."""
        student = students()[place].eval()
        return lambda: predictions(student, content["image"])

    def evaluating(place: int, meters: dict) -> Work:
        """A forward pass, what it predicts, and the metrics."""
        student = students()[place].eval()

        def evaluate() -> None:
            outputs = predictions(student, content["image"])
            for name, task in tasks.items():
                meters[name].update(task.predict(outputs[name]), content[name])

        return evaluate

    forward = in_turn(lambda: predicting(0), lambda: predicting(1), ROUNDS)
    whole = in_turn(
        lambda: evaluating(0, {name: task.new_metric() for name, task in tasks.items()}),
        lambda: evaluating(1, {name: new() for name, new in LOOPS.items()}),
        ROUNDS,
    )
    rows = [*ratio_rows("forward", forward), *ratio_rows("forward, predictions, metrics", whole)]
    return (
        f"ViT-B, one image of {SIZE} x {SIZE}, float32; {IN_TURN.format(rounds=ROUNDS)}. All tasks are predicted; the "
        "metrics are those of all but boundaries, whose matching has a section of its own.\n\n"
        f"{table(RATIO_HEADER, rows)}"
    )


@torch.no_grad()
def predictions(student: nn.Module, images: Tensor) -> dict[str, Tensor]:
    output = student(images)
    return output[0] if isinstance(output, tuple) else output.predictions

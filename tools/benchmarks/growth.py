"""How the cost of a student's forward and backward pass grows with teachers, tasks and image size.

Operations and memory are counted on tensors without data, as `sak.preflight.plan` does; times are measured.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.apart import alone, in_turn
from benchmarks.paper import SIZE, TASKS, TEACHERS, batch, students
from benchmarks.student import learn, loss, maps
from benchmarks.timing import table
from sak.preflight.operations import counting
from sak.preflight.plan import step_memory

ROUNDS = 1
TIMED = SIZE // 2  # for the times of rows of teachers and tasks, so that all of them take minutes
SIZES = (SIZE // 4, SIZE // 2, SIZE * 3 // 4, SIZE)
MORE_TEACHERS = (*TEACHERS, "fourth", "fifth", "sixth")
MORE_TASKS = {**TASKS, "depth": 1}
HEADER = ("ours, s", "plain, s", "plain / ours", "TFLOP, ours", "plain", "memory, ours", "plain")
Shape = tuple[Mapping[str, int], Sequence[str]]  # tasks, teachers


def run() -> str:
    teachers = [(str(count), (TASKS, MORE_TEACHERS[:count])) for count in range(1, 7)]
    tasks = [(str(count), (dict(list(MORE_TASKS.items())[:count]), TEACHERS)) for count in range(1, 7)]
    first = [(title, *timed(TIMED, shape), *alone(partial(counted, SIZE, shape))) for title, shape in teachers]
    second = [(title, *timed(TIMED, shape), *alone(partial(counted, SIZE, shape))) for title, shape in tasks]
    shape = TASKS, TEACHERS
    third = [(f"{size} x {size}", *timed(size, shape), *alone(partial(counted, size, shape))) for size in SIZES]
    return (
        "A ViT-B student forward and backward on one image, float32: processor seconds, both in turn; operations of "
        "matrix products, convolutions and attention forward and backward, and memory in MiB beyond the weights, "
        f"counted. In the first two tables images of {TIMED} x {TIMED} are timed and those of {SIZE} x {SIZE} "
        f"counted.\n\n{table((f'teachers, {len(TASKS)} tasks', *HEADER), first)}\n\n"
        f"{table((f'tasks, {len(TEACHERS)} teachers', *HEADER), second)}\n\n{table(('image', *HEADER), third)}"
    )


def timed(size: int, shape: Shape) -> tuple[str, ...]:
    images = batch(size)["image"]
    ours, plain = ((lambda place=place: partial(learn, students(size, *shape)[place], images)) for place in range(2))
    (times,) = in_turn(ours, plain, ROUNDS, ("fp32",))
    return f"{times.first:.2f}", f"{times.second:.2f}", f"{times.median:.2f}"


def counted(size: int, shape: Shape) -> tuple[str, ...]:
    """TFLOP of both forms, then MiB of both."""

    def objective(model: nn.Module, content: Mapping) -> tuple[Tensor, dict]:
        return loss(maps(model, content["image"])), {}

    with torch.device("meta"):
        pair = students(size, *shape)
    operations = []
    with FakeTensorMode(allow_non_fake_inputs=True):
        content = {"image": torch.empty(1, 3, size, size)}
        for student in pair:
            student.to_empty(device="cpu")
            with counting() as counter:
                learn(student, content["image"])
            operations.append(counter.get_total_flops() / 1e12)
            student.zero_grad()
        memory = [step_memory(student, [student], objective, content) for student in pair]
    return *(f"{number:.2f}" for number in operations), *(f"{(peak - held) / 2**20:.0f}" for held, peak in memory)

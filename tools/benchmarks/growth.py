"""How the cost of a student's forward and backward pass grows with teachers, tasks and image size."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.paper import SIZE, TASKS, TEACHERS, batch, in_turn, students
from benchmarks.student import learn, maps
from benchmarks.timing import table
from sak.engine.plan import step_memory

ROUNDS = 1
SMALL = SIZE // 2  # for rows of teachers and tasks, so that all of them take minutes
SIZES = (SIZE // 4, SIZE // 2, SIZE * 3 // 4, SIZE)
MORE_TEACHERS = (*TEACHERS, "fourth", "fifth", "sixth")
MORE_TASKS = {**TASKS, "depth": 1}
HEADER = ("ours, s", "plain, s", "plain / ours", "GFLOP, ours", "GFLOP, plain", "memory, ours", "memory, plain")


def run() -> str:
    some_tasks = [dict(list(MORE_TASKS.items())[:count]) for count in range(1, 7)]
    teachers = [row(f"{count}", SMALL, TASKS, MORE_TEACHERS[:count]) for count in range(1, 7)]
    tasks = [row(f"{len(some)}", SMALL, some, TEACHERS) for some in some_tasks]
    sizes = [row(f"{size} x {size}", size, TASKS, TEACHERS) for size in SIZES]
    first, second, third = (
        table((title, *HEADER[1:]), rows)
        for title, rows in (("teachers", teachers), ("tasks", tasks), ("image", sizes))
    )
    return (
        "A ViT-B student forward and backward on one image, float32, processor seconds, both in turn; multiplications "
        "and additions of matrix products, convolutions and attention in the forward pass; memory in MiB beyond the "
        f"weights, counted.\n\n{len(TASKS)} tasks, {SMALL} x {SMALL}:\n\n{first}\n\n{len(TEACHERS)} teachers, "
        f"{SMALL} x {SMALL}:\n\n{second}\n\n{len(TEACHERS)} teachers, {len(TASKS)} tasks:\n\n{third}"
    )


def row(title: str, size: int, tasks: Mapping[str, int], teachers: Sequence[str]) -> tuple[str, ...]:
    ours, plain = students(size, tasks, teachers)
    images = batch(size)["image"]
    times = in_turn(lambda: learn(ours, images), lambda: learn(plain, images), ROUNDS)
    cells = [f"{times.first:.2f}", f"{times.second:.2f}", f"{times.median:.2f}"]
    cells += [f"{flops(student, images) / 1e9:.0f}" for student in (ours, plain)]
    return title, *cells, *(f"{memory(student, images):.0f}" for student in (ours, plain))


def flops(student: nn.Module, images: torch.Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        maps(student, images)
    return counter.get_total_flops()


def memory(student: nn.Module, images: torch.Tensor) -> float:
    student.zero_grad()

    def objective(model: nn.Module, content: Mapping) -> tuple[torch.Tensor, dict]:
        return sum(output.square().mean() for output in maps(model, content["image"])), {}

    weights, peak = step_memory(student, [student], objective, {"image": images})
    return (peak - weights) / 2**20

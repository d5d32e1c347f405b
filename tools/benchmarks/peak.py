"""What this machine can do at best, and what share of it a student's step reaches."""

import time
from collections.abc import Callable

import torch

from benchmarks.paper import LEVELS, SIZE, TASKS, WIDTH, batch, students
from benchmarks.student import learn, predict
from benchmarks.timing import seconds, table
from sak.evaluation.distributed import keep_freed
from sak.preflight.operations import counting
from sak.student.head import Head

SIDE = 2048  # of the square matrices, which no cache holds as a whole
COPIED = 2**28  # bytes, more than any cache holds
ROUNDS = 3
GRID = SIZE // 16  # tokens a side of the student's levels


def run() -> str:
    keep_freed()  # as training and evaluation do
    single = matrix_rate(torch.float32)
    limits = [
        ("float32 matrix product", f"{single / 1e9:.0f} GFLOP/s"),
        ("bfloat16 matrix product", f"{matrix_rate(torch.bfloat16) / 1e9:.0f} GFLOP/s"),
        ("copy, read and written", f"{copy_rate() / 1e9:.1f} GB/s"),
    ]
    rows = []
    for title, function in works().items():
        taken, operations = fastest(function), counted(function)
        reached = f"{operations / taken / 1e9:.0f}", f"{operations / taken / single:.0%}"
        rows.append((title, f"{taken:.2f}", f"{operations / 1e9:.0f}", *reached))
    header = ("", "s", "GFLOP", "GFLOP/s", "of the limit")
    return (
        f"{table(('limit, in processor seconds', 'reached'), limits)}\n\n"
        f"ViT-B, three teachers, five tasks, one image of {SIZE} x {SIZE}, training mode, float32; processor seconds, "
        f"fastest of {ROUNDS}; operations of matrix products, convolutions and attention, and the share of the float32 "
        f"matrix rate.\n\n{table(header, rows)}"
    )


def works() -> dict[str, Callable[[], object]]:
    """What is held against the limit."""
    student, images = students()[0], batch(SIZE)["image"]
    head = Head(WIDTH, len(LEVELS), TASKS["semseg"]).train()
    levels = [torch.randn(1, WIDTH, GRID, GRID, requires_grad=True) for _ in LEVELS]

    def decode() -> None:
        with torch.no_grad():
            head([level.detach() for level in levels], (SIZE, SIZE))

    return {
        "head, forward": decode,
        "head, forward and backward": lambda: head(levels, (SIZE, SIZE)).square().mean().backward(),
        "student, forward": lambda: predict(student, images),
        "student, forward and backward": lambda: learn(student, images),
    }


def fastest(function: Callable[[], object]) -> float:
    """Processor seconds, after a round that does not count."""
    return min([seconds(function, time.process_time) for _ in range(1 + ROUNDS)][1:])


def counted(function: Callable[[], object]) -> int:
    """Operations; a multiplication and an addition are two."""
    with counting() as counter:
        function()
    return counter.get_total_flops()


def matrix_rate(dtype: torch.dtype) -> float:
    """Operations a processor second of a product of square matrices."""
    one, other = torch.randn(2, SIDE, SIDE).to(dtype)
    out = torch.empty_like(one)
    return 2 * SIDE**3 / fastest(lambda: torch.mm(one, other, out=out))


def copy_rate() -> float:
    """Bytes read and written a processor second, into memory that was touched before."""
    source, target = torch.ones(2, COPIED // 4)
    return 2 * COPIED / fastest(lambda: target.copy_(source))

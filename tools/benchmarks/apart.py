"""Forms of the same work in processes of their own, which keep memory as each does where it is used.

Processes are forked, so that what they are to do needs no name; for torch's threads do not survive that, a process that
forks has not computed anything.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from benchmarks.timing import Ratio, ratio, seconds
from sak.evaluation.distributed import keep_freed

FORK = multiprocessing.get_context("fork")
Work = Callable[[], object]
Build = Callable[[], Work]


class Form:
    """What ``build`` returns, in a process that builds it and then runs it when it is asked to.

    Args:
        keeps: the process keeps the memory that it frees, as our training and evaluation do.
    """

    def __init__(self, build: Build, keeps: bool):
        self.connection, its = FORK.Pipe()
        self.process = FORK.Process(target=_serve, args=(its, build, keeps), daemon=True)
        self.process.start()
        its.close()

    def seconds(self, precision: str) -> float:
        """Processor seconds of one more run; in ``fp32``, or in mixed precision in ``bf16``."""
        self.connection.send(precision)
        return _received(self.connection)

    def __enter__(self) -> "Form":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.join()


def in_turn(ours: Build, plain: Build, rounds: int, precisions: Sequence[str] = ("fp32", "bf16")) -> list[Ratio]:
    """Processor seconds of both, which other programs change less than the time of day; ours in each precision.

    A first round, in which memory is touched for the first time, does not count.
    """
    with Form(ours, keeps=True) as one, Form(plain, keeps=False) as other:
        times = [([one.seconds(p) for p in precisions], other.seconds("fp32")) for _ in range(1 + rounds)][1:]
    return [ratio([(our[place], its) for our, its in times]) for place in range(len(precisions))]


def alone(function: Callable[[], Any]) -> Any:
    """What the function returns in a process of its own, whose memory is free again afterwards."""
    connection, its = FORK.Pipe()
    process = FORK.Process(target=_answer, args=(its, function))
    process.start()
    its.close()
    try:
        return _received(connection)
    finally:
        process.join()


def fresh(module: str, *arguments: str) -> dict:
    """What `python -m MODULE ARGUMENTS` prints as JSON: figures of a fresh process, for its peak memory."""
    child = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(
        child, cwd=Path(__file__).parents[1], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    print(module, *arguments, done.stdout.splitlines()[-1], file=sys.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def _serve(connection: Connection, build: Build, keeps: bool) -> None:
    if keeps:
        keep_freed()
    work: list[Work] = []

    def timed(precision: str) -> float:
        if not work:
            work.append(build())
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return seconds(work[0], time.process_time)

    while True:
        precision = connection.recv()
        _answer(connection, lambda precision=precision: timed(precision))


def _answer(connection: Connection, function: Callable[[], Any]) -> None:
    try:
        answer = function(), None
    except BaseException as error:
        answer = None, error
    connection.send(answer)


def _received(connection: Connection) -> Any:
    answer, error = connection.recv()
    if error is not None:
        raise error
    return answer

"""The tasks. A new one is a file beside these and a line in ``TASKS``."""

from collections.abc import Mapping

from sak.errors import UserError
from sak.tasks.base import HIGHER, IGNORE, LOWER, Task
from sak.tasks.depth import Depth
from sak.tasks.edge import Edge
from sak.tasks.human_parts import HumanParts
from sak.tasks.normals import Normals
from sak.tasks.saliency import Saliency
from sak.tasks.semseg import SemSeg

TASKS: dict[str, type[Task]] = {task.name: task for task in (SemSeg, HumanParts, Saliency, Normals, Edge, Depth)}

__all__ = ["HIGHER", "IGNORE", "LOWER", "TASKS", "Task", "benchmarks", "build"]


def benchmarks(channels: Mapping[str, int]) -> list[str]:
    """The benchmarks (keys of ``channels_of``) on which every one of these tasks exists with these output channels."""
    known = {benchmark: None for task in TASKS.values() for benchmark in task.channels_of}  # in order
    return [
        benchmark
        for benchmark in known
        if all(name in TASKS and TASKS[name].channels_of.get(benchmark) == count for name, count in channels.items())
    ]


def build(name: str, dataset: str) -> Task:
    """The task of that name on a data set.

    Raises:
        UserError: there is no such task, or the data set has no labels for it.
    """
    if name not in TASKS:
        raise UserError(f"unknown task {name!r}; known: {', '.join(TASKS)}")
    if dataset not in TASKS[name].channels_of:
        known = [task for task, kind in TASKS.items() if dataset in kind.channels_of]
        raise UserError(f"data set {dataset!r} has no task {name!r}; it has: {', '.join(known) or 'none'}")
    return TASKS[name](dataset)

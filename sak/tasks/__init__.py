"""The tasks. A new one is a file beside these and a line in ``TASKS``."""

from collections.abc import Mapping

from sak.errors import UserError
from sak.tasks.base import HIGHER, LOWER, Task
from sak.tasks.depth import Depth
from sak.tasks.edge import Edge
from sak.tasks.human_parts import HumanParts
from sak.tasks.normals import Normals
from sak.tasks.saliency import Saliency
from sak.tasks.semseg import SemSeg

TASKS: dict[str, type[Task]] = {task.name: task for task in (SemSeg, HumanParts, Saliency, Normals, Edge, Depth)}

__all__ = ["HIGHER", "LOWER", "TASKS", "Task", "arrow", "benchmarks", "build", "find_metric", "headlines"]


def benchmarks(channels: Mapping[str, int]) -> list[str]:
    """The benchmarks (keys of ``channels_of``) on which every one of these tasks exists with these output channels."""
    known = {benchmark: None for task in TASKS.values() for benchmark in task.channels_of}  # in order
    return [
        benchmark
        for benchmark in known
        if all(name in TASKS and TASKS[name].channels_of.get(benchmark) == count for name, count in channels.items())
    ]


def arrow(task: Task) -> str:
    """Which way the headline metric is better, for tables and figures."""
    return "↑" if task.headline()[1] else "↓"


def headlines(tasks: Mapping[str, Task | type[Task]]) -> dict[str, tuple[str, bool]]:
    """{task: (its headline metric, whether more of it is better)}, as ``sak.metrics.delta_m`` asks for it."""
    return {name: task.headline() for name, task in tasks.items()}


def find_metric(name: str, tasks: Mapping[str, Task], key: str, or_else: str = "") -> tuple[str, str]:
    """(task, metric) of "TASK.METRIC".

    Raises:
        UserError: the tasks have no such metric, which ``key``, a key of a config or an option, asked for; what it
            could be instead is ``or_else``.
    """
    task, _, metric = name.partition(".")
    if task not in tasks or metric not in tasks[task].measures:
        known = [f"{title}.{measure}" for title, each in tasks.items() for measure in each.measures]
        raise UserError(f"{key} is {name!r}, but must be {or_else}one of {', '.join(known)}")
    return task, metric


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

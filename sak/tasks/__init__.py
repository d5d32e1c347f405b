"""The tasks. A new one is a file beside these and a line in ``TASKS``, or ``package.module:Class`` in a config."""

import inspect
import re
from collections.abc import Mapping
from typing import Any

from sak.config.own_classes import NoSuchModule, NoSuchName, attribute_of
from sak.errors import UserError
from sak.tasks.base import HIGHER, LOWER, Task, palette
from sak.tasks.depth import Depth
from sak.tasks.description import Kind, TaskDescription
from sak.tasks.edge import Edge
from sak.tasks.human_parts import HumanParts
from sak.tasks.normals import Normals
from sak.tasks.saliency import Saliency
from sak.tasks.semseg import SemSeg

TASKS: dict[str, type[Task]] = {task.name: task for task in (SemSeg, HumanParts, Saliency, Normals, Edge, Depth)}
RESERVED = {"image", "pixels", "name", "size", "boundaries", "view", "index"}  # the other keys of samples

__all__ = [
    "HIGHER",
    "LOWER",
    "TASKS",
    "Kind",
    "Task",
    "TaskDescription",
    "arrow",
    "build",
    "find_metric",
    "find_task",
    "headlines",
    "imported",
    "record",
    "recorded",
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


def find_task(entry: str) -> type[Task]:
    """What an entry of ``data.tasks`` names: a task of ours, or ``package.module:Class``.

    Raises:
        UserError: there is no such task, or it is none.
    """
    if ":" not in entry:
        if entry not in TASKS:
            raise UserError(f"unknown task {entry!r}; known: {', '.join(TASKS)}, or package.module:Class of your own")
        return TASKS[entry]
    found: type[Task] = imported(entry, Task, "data.tasks")
    if lacking := [what for what in ("name", "kind", "weight", "measures", "units") if not hasattr(found, what)]:
        raise UserError(f"data.tasks: {entry} lacks {', '.join(lacking)}, which every task says of itself")
    if not re.fullmatch("[a-z][a-z0-9_]{0,59}", found.name) or found.name in RESERVED or found.name in TASKS:
        raise UserError(
            f"data.tasks: {entry} has the name {found.name!r}, but must have one of its own of at most 60 small "
            "letters, digits and _"
        )
    return found


def imported(entry: str, base: type, key: str) -> type:
    """The class of "package.module:Class".

    Args:
        base: what it must be a subclass of.
        key: of the config that names it.

    Raises:
        UserError: there is no such class, or it is none of these, or lacks what they must have.
    """
    module, _, name = entry.partition(":")
    if not (module and name):
        raise UserError(f"{key} is {entry!r}, but must be package.module:Class for a class of your own")
    try:
        found = attribute_of(entry)
    except NoSuchModule as error:
        raise UserError(
            f"{key}: there is no module {error} for {entry}; install it or put its folder on PYTHONPATH"
        ) from error
    except NoSuchName as error:
        raise UserError(f"{key}: module {module} has no {name!r}; {key} is {entry}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{key}: {entry} is no subclass of {base.__module__}.{base.__qualname__}")
    if inspect.isabstract(found):
        raise UserError(f"{key}: {entry} lacks {', '.join(sorted(found.__abstractmethods__))}")  # type: ignore[attr-defined]
    return found


def build(entry: str, description: TaskDescription) -> Task:
    """The task that an entry of ``data.tasks`` names, on labels of which a data set says this.

    Raises:
        UserError: there is no such task.
    """
    return find_task(entry)(description)


def record(task: Task) -> dict[str, Any]:
    """What a bundle keeps of a task: which class it is, the kind of its labels, and what the data set says of them."""
    kind = type(task)
    name = task.name if TASKS.get(task.name) is kind else f"{kind.__module__}:{kind.__qualname__}"
    said = task.description.as_json()
    if task.kind is Kind.CLASSES and task.scale is None and "colours" not in said:
        said["colours"] = palette(task.description)[: task.channels].tolist()
    return {"task": name, "kind": task.kind.value, "channels": task.channels, **said}


def recorded(kept: Mapping[str, Any]) -> Task:
    """The task of a `record`.

    Raises:
        UserError: it is none, or its class is not to be had here.
    """
    if not isinstance(kept.get("task"), str) or not isinstance(kept.get("channels"), int):
        raise UserError("the record of a task has no name or no channels: it is none that sak has written")
    return build(kept["task"], TaskDescription.of_json(kept["channels"], kept))

"""The tasks. A new one is a file beside these and a line in ``TASKS``."""

from ..errors import UserError
from .base import HIGHER, IGNORE, LOWER, Task
from .depth import Depth
from .edge import Edge
from .human_parts import HumanParts
from .normals import Normals
from .saliency import Saliency
from .semseg import SemSeg

TASKS: dict[str, type[Task]] = {task.name: task for task in (SemSeg, HumanParts, Saliency, Normals, Edge, Depth)}

__all__ = ["HIGHER", "IGNORE", "LOWER", "TASKS", "Task", "build"]


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

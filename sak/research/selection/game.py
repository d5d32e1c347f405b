"""What a coalition of teachers is worth: that of a student masked to the stem and the paths of these teachers."""

from collections.abc import Mapping, Sequence

from torch.utils.data import Subset

from sak.data import loading
from sak.data.archive import Archive
from sak.errors import UserError
from sak.evaluation.masking import MaskedStudents, teachers_of
from sak.metrics import Metrics
from sak.metrics.delta_m import delta_m
from sak.research.selection.shapley import Coalition
from sak.tasks import HIGHER, Task, find_metric, headlines

DELTA_M = "delta_m"


class MaskedGame:
    """The game whose value is Δm against the unmasked student, or a task's metric, on masked students.

    Args:
        students: one student, masked.
        value: ``delta_m`` or TASK.METRIC; a metric of which less is better counts negatively.

    Raises:
        UserError: Δm cannot be had, as the unmasked student has 0 in a headline metric.
    """

    def __init__(self, students: MaskedStudents, value: str):
        self.students, self.value = students, value
        self.teachers = teachers_of(students.subject)
        self.reference = self._metrics([frozenset(self.teachers)])[0]
        worth(self.reference, value, self.reference, students.tasks)  # whether it exists is told before the long part

    def __call__(self, coalitions: Sequence[Coalition]) -> list[float]:
        return [worth(found, self.value, self.reference, self.students.tasks) for found in self._metrics(coalitions)]

    def _metrics(self, coalitions: Sequence[Coalition]) -> list[Metrics]:
        return self.students.metrics([set(self.teachers) - coalition for coalition in coalitions])


def worth(metrics: Metrics, value: str, reference: Metrics, tasks: Mapping[str, Task]) -> float:
    """What a student is worth: more is better.

    Args:
        value: as in `MaskedGame`.
        reference: what Δm is relative to.

    Raises:
        UserError: Δm cannot be had, as ``delta_m`` says.
    """
    if value == DELTA_M:
        return delta_m(metrics, reference, headlines(tasks))
    task, metric = value.split(".")
    return metrics[task][metric] if tasks[task].measures[metric] == HIGHER else -metrics[task][metric]


def value_label(value: str, tasks: Mapping[str, Task]) -> str:
    """What the values are, for tables and axes: with the unit, and a minus where less of the metric is better."""
    if value == DELTA_M:
        return "Δm, %"
    task, metric = value.split(".")
    return f"{'' if tasks[task].measures[metric] == HIGHER else '-'}{value}, {tasks[task].units}"


def tasks_of_value(value: str, tasks: Mapping[str, Task]) -> dict[str, Task]:
    """The tasks that a value function needs.

    Raises:
        UserError: there is no such value.
    """
    if value == DELTA_M:
        return dict(tasks)
    task, _ = find_metric(value, tasks, "--value", f"{DELTA_M} or ")
    return {task: tasks[task]}


def some_images(dataset: Archive, count: int | None) -> Archive | Subset:
    """All images, or so many spread evenly over the set.

    Raises:
        UserError: there are not so many.
    """
    if count is None:
        return dataset
    if not 0 < count <= len(dataset):
        raise UserError(f"--images is {count}, but there are {len(dataset)} validation images: choose 1 to that many")
    return Subset(dataset, loading.evenly_spread(len(dataset), count))

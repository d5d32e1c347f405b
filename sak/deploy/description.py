"""What a student's outputs stand for: the names and colours of its classes, the units of its numbers."""

from sak import data, tasks
from sak.errors import UserError
from sak.student import Student
from sak.tasks import Task


def tasks_of(student: Student) -> dict[str, Task]:
    """{task: what is known of it}, for all heads of the student.

    Raises:
        UserError: nothing is known of one.
    """
    return {name: _task(name, channels) for name, channels in student.channels.items()}


def task_of(dataset: str, name: str) -> Task:
    """A task of a data set.

    Raises:
        UserError: there is no such data set, or it has no such task.
    """
    return tasks.build(name, data.benchmark(dataset))


def _task(name: str, channels: int) -> Task:
    benchmarks = tasks.benchmarks({name: channels})
    if not benchmarks:
        raise UserError(f"the student's task {name!r} with {channels} channels is of no known data set")
    return tasks.build(name, benchmarks[0])

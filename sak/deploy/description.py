"""What a student's outputs stand for: the names and colours of its classes, the units of its numbers."""

from sak import tasks
from sak.errors import UserError
from sak.student import Student
from sak.tasks import Task


def tasks_of(student: Student) -> dict[str, Task]:
    """{task: what is known of it}, for all heads of the student.

    Raises:
        UserError: nothing is known of one.
    """
    return {name: _task(name, channels) for name, channels in student.channels.items()}


def _task(name: str, channels: int) -> Task:
    benchmarks = tasks.benchmarks({name: channels})
    if not benchmarks:
        raise UserError(f"the student's task {name!r} with {channels} channels is of no known data set")
    return tasks.build(name, benchmarks[0])

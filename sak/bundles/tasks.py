"""The tasks of a trained student, as its bundle describes them: classes, colours, how they are evaluated."""

from collections.abc import Mapping

from sak import data
from sak.errors import UserError
from sak.student import Student
from sak.tasks import TASKS, Task, TaskDescription, build, record, recorded


def tasks_of(student: Student) -> dict[str, Task]:
    """The tasks that a student has heads for, in their order.

    Bundles that are older than the descriptions have channels alone; theirs are those of a benchmark that has just
    these tasks and channels, or else classes without names.

    Raises:
        UserError: a description is none, belongs to other channels, or names a class that is not to be had here.
    """
    if not student.descriptions:
        return tasks_by_channels(student.channels)
    tasks = {}
    for name, channels in student.channels.items():
        task = recorded(student.descriptions.get(name, {}))
        if task.channels != channels or task.name != name:
            raise UserError(
                f"the student's head {name} has {channels} channels, but its description is of {task.name} with "
                f"{task.channels}: the bundle's config.json has been changed"
            )
        tasks[name] = task
    return tasks


def tasks_by_channels(channels: Mapping[str, int]) -> dict[str, Task]:
    """Tasks of which nothing but their output channels is known.

    Raises:
        UserError: one is none of ours.
    """
    if fitting := data.fitting(channels):
        return {name: data.described(fitting[0]).build(name) for name in channels}
    if strangers := sorted(channels.keys() - TASKS.keys()):
        raise UserError(f"the student has a head for {strangers[0]!r}, of which its bundle says nothing")
    return {name: build(name, TaskDescription(channels=count)) for name, count in channels.items()}


def records(tasks: Mapping[str, Task]) -> dict[str, dict]:
    """What a bundle keeps of each of them."""
    return {name: record(task) for name, task in tasks.items()}

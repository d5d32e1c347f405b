"""A trained student that is changed: a teacher is added, updated or removed, and what it had is frozen.

Everything of the old student is frozen but what the config names (``student.trained_beside``), and the stem keeps its
position embedding too: it is resized on the fly for images of another size.
"""

from pathlib import Path
from typing import cast

import torch
from omegaconf import DictConfig

from sak.bundles.build import build_student
from sak.bundles.bundle import find_bundle, load_student
from sak.bundles.path_files import start_path
from sak.config.derived import change, left_out, taught_by, trained_beside
from sak.errors import UserError
from sak.student import Student, growth
from sak.tasks import Task

# What a student keeps in other ways than by the config: images of any size, teachers and tasks of its own.
OWN = ("image_size", "teachers", "tasks", "aligner", "heads", "descriptions")


def trained_student(config: DictConfig) -> Student | None:
    """The student that the config changes, as it was left; None if it changes none.

    Raises:
        UserError: there is none, its run is unfinished, or it has the teacher already that is to be added, or lacks the
            one that is to be updated or removed.
    """
    if (changed := change(config)) is None:
        return None
    (what, teacher), place = changed, Path(config.student.weights)
    if (place / "config.yaml").is_file() and not (place / "metrics.json").is_file():
        raise UserError(f"from={place}: this run is unfinished; the command that started it goes on where it stopped")
    student = load_student(find_bundle(place))
    if (what == "add") == (teacher in student.paths):
        has = "has a path of it already" if what == "add" else "has no path of it"
        known = ", ".join(student.paths) or "none"
        raise UserError(f"student.{what}_teacher is {teacher!r}, but {place} {has}; its teachers: {known}")
    if not student.heads and not left_out(config.stages.multitask) and what != "remove":
        raise UserError(
            f"{place} was distilled only, without heads and routers: leave out the second stage here too "
            "(stages.multitask.steps=0), and then train the new student on the tasks with student.weights"
        )
    return student


def changed_student(config: DictConfig, source: Student, tasks: dict[str, Task], dims: dict[str, list[int]]) -> Student:
    """The student that a run starts with, with the parts that do not learn frozen.

    Args:
        source: of `trained_student`.
        tasks: those that the config has heads for.
        dims: {teacher: its width at each level}, of the teacher that is added or updated.

    Raises:
        UserError: config, source and teacher do not fit together.
    """
    (what, teacher), place = cast(tuple[str, str], change(config)), config.student.weights
    had = dict(source.settings["teachers"])
    if what == "update" and dims[teacher] != list(had[teacher]):
        raise UserError(
            f"student.update_teacher: {teacher} has the widths {dims[teacher]}, but the path in {place} is of a "
            f"teacher with {list(had[teacher])}: remove that one, and add this one"
        )
    _check_same(config, source, tasks, {**had, **dims})
    try:
        if what == "add":
            student = growth.add_teacher(source, teacher, dims[teacher], config.student.aligner)
        elif what == "update":
            student = growth.realigned(source, teacher, config.student.aligner)
            if "routers" in trained_beside(config):
                growth.reopen(student, teacher)
        else:
            student = growth.remove_teacher(source, teacher)
    except ValueError as error:
        raise UserError(f"student.{what}_teacher={teacher}: {place} cannot be changed: {error}") from error
    if config.student.path is not None:
        start_path(student, teacher, config.student.path)
    student.activation_checkpointing = config.student.activation_checkpointing
    student.freeze(frozen_parts(config, student))
    return student


def frozen_parts(config: DictConfig, student: Student) -> list[str]:
    """The parts of a changed student that no stage trains."""
    learning = set(taught_by(config))
    paths = [f"paths.{name}" for name in student.paths if name not in learning]
    return ["stem", *paths, *(part for part in ("routers", "heads") if part not in trained_beside(config))]


def describe_start(config: DictConfig) -> str:
    """How a changed student starts."""
    (what, teacher), origin = cast(tuple[str, str], change(config)), config.student.path
    how = {
        "add": f"with a path for {teacher}" + (f" from {origin}" if origin else ", at random"),
        "update": f"with the path of {teacher}" + (f" from {origin}" if origin else " to be distilled again"),
        "remove": f"without the path of {teacher}",
    }
    return f"what is at {config.student.weights}, {how[what]}"


def trained_and_frozen(student: Student) -> str:
    """How many of its weights a stage trains, and how many are frozen."""
    trained = sum(weight.numel() for weight in student.parameters() if weight.requires_grad)
    frozen = sum(weight.numel() for weight in student.parameters()) - trained
    return f"{trained:,} weights are trained and {frozen:,} are frozen"


def _check_same(config: DictConfig, source: Student, tasks: dict[str, Task], teachers: dict[str, list[int]]) -> None:
    """
    Raises:
        UserError: the config describes another student than the one that it changes.
    """
    place = config.student.weights
    channels = {name: task.channels for name, task in tasks.items()}
    if source.channels != channels:
        raise UserError(f"data.tasks have the channels {channels}, but the student at {place} has {source.channels}")
    with torch.device("meta"):  # costs nothing
        own = build_student(config, tasks, teachers).settings
    theirs = source.settings
    for key in own.keys() - set(OWN):
        if _plain(own[key]) != _plain(theirs[key]):
            raise UserError(
                f"student.{key} is {_plain(own[key])}, but {_plain(theirs[key])} in the student at {place}, "
                "which keeps what it is built of"
            )
    for name in tasks:
        if _head(own, name) != _head(theirs, name):
            raise UserError(
                f"student.heads: {name} has {_head(own, name)}, but {_head(theirs, name)} in the student at {place}"
            )


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value or None if isinstance(value, dict) else value


def _head(settings: dict, task: str) -> tuple[str, dict]:
    head = (settings["heads"] or {}).get(task) or {"type": "sak"}
    return head["type"], head.get("options") or {}

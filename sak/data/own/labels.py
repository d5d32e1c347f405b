"""What a config, or a file beside the data, says of the labels of one's own: names, colours, and stored numbers."""

import dataclasses
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from sak.config.schema import DataConfig, LabelConfig
from sak.data.reading import Coding
from sak.errors import UserError
from sak.labels import IGNORE
from sak.tasks import Kind, Task, TaskDescription

CLASSES = "classes.txt"


def has_names(kind: type[Task]) -> bool:
    """Whether the labels are classes that a data set names; those of saliency are levels of one thing."""
    return kind.kind is Kind.CLASSES and kind.scale is None


def label_of(data: DataConfig | DictConfig, task: str) -> LabelConfig:
    """What the config says of a task's labels, or the defaults."""
    said = data.labels.get(task, LabelConfig())
    return cast(LabelConfig, OmegaConf.to_object(said)) if isinstance(said, DictConfig) else said


def describe(kind: type[Task], data: DataConfig | DictConfig, root: Path, shared: bool) -> TaskDescription:
    """What is known of a task's labels.

    Args:
        shared: whether a classes.txt of the whole data set can only be about this task.

    Raises:
        UserError: nobody names the classes, or names and colours do not fit.
    """
    try:
        return _describe_classes(kind, data, root, shared) if has_names(kind) else _describe_numbers(kind, data)
    except UserError as error:
        raise UserError(f"data.tasks: {kind.name}: {error}") from error


def _describe_numbers(kind: type[Task], data: DataConfig | DictConfig) -> TaskDescription:
    if kind.default is None:
        raise UserError("its class says nothing of its channels: give it a default")
    if kind.name in data.classes or kind.name in data.colours:
        raise UserError("it has no classes that could be named or coloured")
    return dataclasses.replace(kind.default, max_dist=label_of(data, kind.name).max_dist or kind.default.max_dist)


def _describe_classes(kind: type[Task], data: DataConfig | DictConfig, root: Path, shared: bool) -> TaskDescription:
    files = [root / kind.name / CLASSES, *([root / CLASSES] if shared else [])]
    file, default = next((path for path in files if path.is_file()), None), kind.default
    if kind.name in data.classes:
        classes = list(data.classes[kind.name])
    elif file is not None:
        classes = read_class_names(file)
    elif default is not None:
        classes = list(default.classes)
    else:
        places = " or ".join(map(str, files))
        raise UserError(f"nobody names its classes: set data.classes={{{kind.name}: [road, car]}}, or write {places}")
    colours = [list(colour) for colour in data.colours.get(kind.name, ())]
    if default is not None and tuple(classes) == default.classes and not colours:
        return default
    background = classes.index("background") if "background" in classes else None
    empty = default is not None and default.ignore_empty and background is not None
    return TaskDescription.of_classes(classes, colours, background=background, ignore_empty=empty)


def read_class_names(path: Path) -> list[str]:
    """One name a line, in the order of the labels.

    Raises:
        UserError: the file cannot be read as text, or names none.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise UserError(f"{path} is no UTF-8: save the names of the classes as UTF-8") from None
    while lines and not lines[-1]:
        lines.pop()
    if not lines or not all(lines):
        where = f"line {lines.index('') + 1} is empty" if lines else "it is empty"
        raise UserError(f"{path} must have the name of a class in each line, but {where}")
    return lines


def coding_of(name: str, label: LabelConfig, classes: int) -> Coding:
    """Which stored numbers stand for so many classes.

    Raises:
        UserError: the stored numbers do not fit the classes, or each other.
    """
    key = f"data.labels.{name}"
    if label.values is not None and label.reduce_zero_label:
        raise UserError(f"{key} has values and reduce_zero_label: values alone can say it all")
    if label.reduce_zero_label:
        values = tuple(range(1, classes + 1))
    else:
        values = tuple(range(classes)) if label.values is None else tuple(label.values)
    ignored = {*({IGNORE} - set(values) if label.ignore is None else label.ignore)}
    if label.reduce_zero_label:
        ignored.add(0)
    if len(values) != classes:
        raise UserError(f"{key}.values has {len(values)} numbers for {classes} classes: give as many")
    if both := sorted(set(values) & ignored):
        label_of_both = values.index(both[0])
        raise UserError(f"{key}: {both[0]} stands for class {label_of_both} and is ignored: correct ignore or values")
    return Coding(values, tuple(sorted(ignored)))

"""What the doctor says of own data beside what it says of every archive: numbers in the labels, and missing labels."""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from sak import data as datasets
from sak.config.schema import DataConfig, LabelConfig
from sak.data.archive import SPLITS, Archive
from sak.data.own.labels import CLASSES, has_names, label_of
from sak.data.reading import read_map
from sak.errors import UserError
from sak.preflight.examination import Problem
from sak.tasks import find_task

MOST_MAPS = 500  # of a task, that are read to suggest its classes
MOST_SHOWN = 40  # numbers in a line


def with_named_classes(data: DataConfig | DictConfig, problems: list[Problem]) -> DataConfig | DictConfig:
    """The settings with stand-ins for the classes that nobody names, so that all else can be examined.

    Args:
        problems: gets one for each task whose classes have no names: which numbers its labels hold, and so how many
            names are asked for.
    """
    if not datasets.class_of(data.dataset).FROM_CONFIG:
        return data
    root = Path(data.root).expanduser()
    kinds = {kind.name: kind for kind in map(find_task, data.tasks)}
    unnamed = [
        name
        for name, kind in kinds.items()
        if has_names(kind) and kind.default is None and name not in data.classes and not _lies_beside(root, name)
    ]
    if not unnamed:
        return data
    given = cast(DataConfig, OmegaConf.to_object(data)) if isinstance(data, DictConfig) else copy.deepcopy(data)
    # A first stand-in, with which the files can be found.
    found = copy.deepcopy(given)
    for name in unnamed:
        found.classes[name], found.labels[name] = ["class 0"], LabelConfig(path=label_of(given, name).path)
    kind = datasets.kind_of(found)
    for name in unnamed:
        numbers, maps = stored_numbers(kind, root, name)
        label = label_of(given, name)
        ignored = {*(label.ignore or [255]), *([0] if label.reduce_zero_label else [])}
        classes = label.values or sorted(numbers.keys() - ignored)
        detail = f"{maps:,} maps hold {_listed(sorted(numbers))}: {len(classes)} classes if {_listed(sorted(ignored))} "
        detail += "is ignored" if len(ignored) == 1 else "are ignored"
        if classes and not label.reduce_zero_label and classes != list(range(len(classes))) and label.values is None:
            detail += f"; then set data.labels.{name}.values to [{_listed(classes)}]"
        problems.append(Problem("unnamed classes", name, detail))
        given.classes[name] = [f"class {value}" for value in classes] or ["class 0"]
        if not label.reduce_zero_label:
            given.labels[name] = LabelConfig(path=label.path, values=classes or [0], ignore=label.ignore)
    return given


def _lies_beside(root: Path, task: str) -> bool:
    return any((folder / CLASSES).is_file() for folder in (root / task, root))


def stored_numbers(kind: type[Archive], root: Path, task: str) -> tuple[Counter[int], int]:
    """{stored number: in how many maps it is} of a task's labels, as they are on disk; and how many maps were read."""
    numbers: Counter[int] = Counter()
    maps = 0
    for split in SPLITS:
        try:
            names = kind.list_names(root, split)
        except UserError:  # which the survey tells
            continue
        files = [path for (path,) in kind.find_files(root, split, names, [task])[0][task] if path is not None]
        for path in files[: MOST_MAPS - maps]:
            try:
                values = read_map(path)
            except UserError:
                continue
            maps += 1
            numbers.update({int(value) for value in values.ravel().tolist()} if values.dtype.kind in "ui" else ())
    return numbers, maps


def numbers_outside(problems: Sequence[Problem], kind: type[Archive], root: Path) -> list[Problem]:
    """For each task of which labels hold numbers outside the classes: which numbers there are, in all of its labels."""
    found = []
    for task in dict.fromkeys(problem.subject for problem in problems if problem.kind == "range"):
        numbers, maps = stored_numbers(kind, root, task)
        classes = kind.DESCRIPTION.tasks[task].channels
        found.append(
            Problem(
                "numbers",
                task,
                f"{maps:,} maps hold {_listed(sorted(numbers))}: {len(numbers)} different numbers, for {classes} "
                "classes and what is ignored",
            )
        )
    return found


def missing_labels(split: str, files: Mapping[str, Sequence[Sequence[Path | None]]]) -> list[tuple[str, str]]:
    """Facts: how many of a split's images have no label of a task, and which is the first.

    Args:
        files: {"image" or task: the files of each image}.
    """
    facts = []
    for task, paths in files.items():
        without = [index for index, of_image in enumerate(paths) if None in of_image]
        if task != "image" and 0 < len(without) < len(paths):
            image = files["image"][without[0]][0]
            text = f"{len(without):,} of {len(paths):,} {split} images have no label, the first is {image}"
            facts.append((task, f"{text}: its loss and its metrics do without them"))
    return facts


def _listed(numbers: Sequence[int]) -> str:
    text = ", ".join(map(str, numbers[:MOST_SHOWN]))
    return text + (f", ... ({len(numbers):,} in all)" if len(numbers) > MOST_SHOWN else "") if numbers else "nothing"

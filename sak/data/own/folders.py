"""``data.dataset: folders``: images and labels of one's own, wherever they lie, and however their classes are coded."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from sak.config.schema import DataConfig, LabelConfig
from sak.data.archive import SPLITS, Archive, Places
from sak.data.description import Description
from sak.data.discovery import find_files, told
from sak.data.own.labels import coding_of, describe, has_names, label_of
from sak.data.reading import (
    SUFFIXES,
    Coding,
    check_label,
    read_coded_classes,
    read_edges,
    read_ids,
    read_normals,
    read_saliency,
    read_scaled,
)
from sak.errors import UserError
from sak.labels import IGNORE
from sak.tasks import TASKS, Kind, Task, find_task

IMAGES = "images/{split}/{name}"
LABELS = "{split}/{name}"  # below the folder of the task


class Folders(Archive):
    """Images and labels in folders; see `Archive` for items and errors.

    What a config says of them, `configured` makes a class of. An image need not have labels of every task: a label
    that is missing is ignored altogether, so that losses and metrics skip the image.
    """

    DESCRIPTION = Description("folders", tasks={})
    FROM_CONFIG = True
    REMEDY = "correct data.images, data.labels or data.splits, or leave the task out of data.tasks"
    TASKS = ()
    FILES = {}
    IMAGES, LISTS = IMAGES, ""
    CODINGS: dict[str, Coding] = {}
    LABELS: dict[str, LabelConfig] = {}

    @classmethod
    def configured(cls, data: DataConfig | DictConfig) -> "type[Folders]":
        root = Path(os.path.expanduser(data.root))
        entries = {entry: find_task(entry) for entry in data.tasks}
        kinds = {kind.name: kind for kind in entries.values()}
        for key, given in (("classes", data.classes), ("colours", data.colours), ("labels", data.labels)):
            if strangers := sorted(given.keys() - kinds.keys() - TASKS.keys()):
                known = ", ".join(kinds)
                raise UserError(f"data.{key} is about {strangers[0]!r}, which is not among data.tasks ({known})")
        cls.check_places(data)
        labels = {name: label_of(data, name) for name in kinds}
        named = [name for name, kind in kinds.items() if has_names(kind)]
        unnamed = [name for name in named if kinds[name].default is None]
        said = {name: describe(kind, data, root, unnamed == [name]) for name, kind in kinds.items()}
        codings = {name: coding_of(name, labels[name], said[name].channels) for name in named}
        files = {name: kind.files or cls.label_places(kind, labels[name].path) for name, kind in kinds.items()}
        return type(
            cls.__name__,
            (cls,),
            {
                "__module__": cls.__module__,
                "DESCRIPTION": Description(root.name or str(root), said),
                "TASKS": tuple(said),
                "FILES": files,
                "IMAGES": data.images or cls.IMAGES,
                "LISTS": data.lists or "",
                "FOLDERS": dict(data.splits),
                "CODINGS": codings,
                "LABELS": labels,
                "READ_AS": repr((codings, labels)),
                "OWN": {kind.name: kind for entry, kind in entries.items() if ":" in entry},
            },
        )

    @classmethod
    def check_places(cls, data: DataConfig | DictConfig) -> None:
        """
        Raises:
            UserError: the config does not say where the files of an image lie, or which images a split has.
        """
        images = data.images or cls.IMAGES
        patterns = {
            "data.images": images,
            **{f"data.labels.{name}.path": said.path for name, said in data.labels.items()},
        }
        for key, pattern in patterns.items():
            if pattern is not None and _filled(pattern).count("\0") != 1:
                example = "a/{split}/{name}.png"
                raise UserError(f"{key} is {pattern!r}, but must have {{name}} once, and may have {{split}}: {example}")
        if data.lists is not None and "\1" not in _filled(data.lists):
            raise UserError(f"data.lists is {data.lists!r}, but must have {{split}}, as lists/{{split}}.txt")
        if "{split}" not in images and data.lists is None:
            raise UserError(
                f"data.images is {images!r}, in which nothing tells train from val: write {{split}} where their "
                "folders differ, or set data.lists to the lists of their names, as lists/{split}.txt"
            )
        if strangers := sorted(set(data.splits) - set(SPLITS)):
            raise UserError(f"data.splits has {strangers[0]!r}, but there are train and val, as in {{val: validation}}")

    @classmethod
    def label_places(cls, kind: type[Task], path: str | None) -> tuple[Places, ...]:
        """Where the labels of a task lie; `path` is what the config says."""
        suffixes = [".npy", ".png"] if kind.kind in (Kind.DISTANCE, Kind.FIELD) else [".png"]
        return (_with_suffixes(path or f"{kind.name}/{LABELS}", suffixes),)

    @classmethod
    def places(cls, task: str) -> tuple[Places, ...]:
        return (_with_suffixes(cls.IMAGES, sorted(SUFFIXES)),) if task == "image" else cls.FILES[task]

    @classmethod
    def list_names(cls, root: Path, split: str) -> list[str]:
        """The names of a split's images: those of its list, or of all images that lie there."""
        if split not in SPLITS:
            raise UserError(f"{cls.DESCRIPTION.title} has no split {split!r}: it has train and val.")
        if not root.is_dir():
            raise UserError(
                f"data.root is {root}, but there is no such folder: set it to the one that holds the images."
            )
        if cls.LISTS:
            path = root / cls.LISTS.format(split=cls.FOLDERS.get(split, split))
            if not path.is_file():
                raise UserError(
                    f"{path}, the list of {split} images, does not exist: correct data.lists or data.splits."
                )
            return read_ids(path, folders=True)
        folder, before, after = cls._around(split)
        if not (root / folder).is_dir():
            raise UserError(f"there is no {root / folder}, for {split} images: correct data.images or data.splits.")
        found, left_out = find_files(root / folder, SUFFIXES)
        names: dict[str, str] = {}
        for file in found:
            name = _between(file, before, after)
            if name is None:
                left_out["of another name"] += 1
            elif name in names:
                raise UserError(
                    f"{root / folder} holds {names[name]} and {file}, two images of one name: keep one of them, or "
                    f"set data.images to {cls.IMAGES}{os.path.splitext(file)[1]}."
                )
            else:
                names[name] = file
        if not names:
            raise UserError(
                f"{root / folder} holds no image that {cls.IMAGES} stands for ({', '.join(sorted(SUFFIXES))})"
                f"{told(left_out, before='; ')}: correct data.images."
            )
        return list(names)

    @classmethod
    def _around(cls, split: str) -> tuple[str, str, str]:
        """The folder that images lie in or below, and what stands before and behind their names there."""
        before, _, after = cls.IMAGES.replace("{split}", cls.FOLDERS.get(split, split)).partition("{name}")
        folder, _, before = before.rpartition("/")
        return folder, before, after

    @classmethod
    def find_files(
        cls, root: Path, split: str, names: Sequence[str], tasks: Sequence[str]
    ) -> tuple[dict[str, list[list[Path | None]]], list[tuple[str, str]]]:
        """As of `Archive`; but a label may be missing, unless there is none of its task at all."""
        found, missing = super().find_files(root, split, names, tasks)
        without = [task for task in tasks if not any(path for paths in found[task] for path in paths)]
        first = dict(reversed(missing))
        return found, [
            *((task, f"{os.path.splitext(file)[0]}.*") for task, file in missing if task == "image"),
            *((task, f"{first[task]}; not one image of {split} has a label of it") for task in without),
        ]

    @classmethod
    def read_label(cls, task: str, size: tuple[int, int], image: Path, paths: Sequence[Path | None]) -> np.ndarray:
        """The label, or one to be ignored altogether where its file is missing."""
        there = [path for path in paths if path is not None]
        if len(there) < len(paths):
            described = cls.task(task)
            if described.kind is Kind.CLASSES:
                return np.full(size, IGNORE, np.uint8)
            return np.full((*size, described.channels), IGNORE, np.float32)
        if task in cls.OWN and cls.OWN[task].read is not Task.read:
            return super().read_label(task, size, image, there)
        return check_label(cls.read(task, size, *there), size, image, there)

    @classmethod
    def read_regions(cls, task: str, size: tuple[int, int], image: Path, paths: Sequence[Path]) -> np.ndarray:
        return cls.read_label(task, size, image, paths)[..., 0]

    @classmethod
    def read(cls, task: str, size: tuple[int, int], *paths: Path) -> np.ndarray:  # type: ignore[override]
        """A label as its kind is stored."""
        (path,), said = paths, cls.LABELS.get(task, LabelConfig())
        match cls.task(task).kind:
            case Kind.CLASSES:
                return read_coded_classes(path, cls.CODINGS[task]) if task in cls.CODINGS else read_saliency(path)
            case Kind.VECTORS:
                return read_normals(path)
            case Kind.BOUNDARY:
                return read_edges(path).astype(np.float32)[..., None]
            case Kind.DISTANCE:
                return read_scaled(path, said.scale, empty=0)
            case Kind.FIELD:
                return read_scaled(path, said.scale, empty=None)
        raise AssertionError(task)


def _with_suffixes(pattern: str, suffixes: Sequence[str]) -> Places:
    """A pattern with a suffix stands for itself, another one for any of these."""
    return (pattern,) if _suffix(pattern.rpartition("}")[2]) else tuple(pattern + suffix for suffix in suffixes)


def _suffix(behind_the_name: str) -> str:
    return os.path.splitext(f"name{behind_the_name}")[1]


def _filled(pattern: str) -> str:
    """The pattern with \\0 for the name and \\1 for the split; "" where it has other places."""
    try:
        return pattern.format(name="\0", split="\1")
    except (KeyError, IndexError, ValueError, AttributeError):
        return ""


def _between(file: str, before: str, after: str) -> str | None:
    """The name in a file's path; None where it is not of that form. Without a suffix behind the name, any will do."""
    if not _suffix(after):
        file = os.path.splitext(file)[0]
    folder, _, last = file.rpartition("/")
    if not (last.startswith(before) and last.endswith(after) and len(last) > len(before) + len(after)):
        return None
    name = last[len(before) : len(last) - len(after)]
    return f"{folder}/{name}" if folder else name

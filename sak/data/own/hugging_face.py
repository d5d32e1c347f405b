"""``data.dataset: hugging_face``: what Hugging Face's ``datasets`` has saved to disk: columns of images and labels."""

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sak.config.schema import DataConfig
from sak.data.archive import SPLITS, Places
from sak.data.description import Description
from sak.data.own.folders import Folders
from sak.errors import UserError
from sak.tasks import Task

IMAGE = "image"  # the column, unless data.images names another


@dataclass(frozen=True)
class Cell:
    """The picture in a row and column of a saved table; with `stem` and `read_bytes` it stands where a `Path` does."""

    root: str
    split: str
    column: str
    row: int

    def __str__(self) -> str:
        return f"{self.root}, {self.split}, row {self.row}, column {self.column},"

    @property
    def stem(self) -> str:
        return name_of(self.row)

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.read_bytes())

    def read_bytes(self) -> bytes:
        """
        Raises:
            OSError: the picture lies in a file beside the table, which cannot be read.
        """
        cell = opened(self.root, self.split, self.column)[self.row][self.column]
        return cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()


def name_of(row: int) -> str:
    return f"{row:08d}"


@functools.lru_cache(maxsize=16)
def opened(root: str, split: str, column: str) -> Any:
    """The table of a split, its pictures as they are stored; it stays on disk and is mapped into memory.

    Raises:
        UserError: the library is not installed, no table lies there, it has no such split or column, or the column has
            no pictures.
    """
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            "data.dataset is hugging_face, which needs the package datasets: pip install 'sak[hugging_face]'"
        ) from error
    try:
        found = datasets.load_from_disk(root)
    except Exception as error:  # the library raises many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"data.root is {root}, which datasets cannot load ({reason}): name a folder that save_to_disk has written"
        ) from error
    if not isinstance(found, datasets.DatasetDict):
        raise UserError(f"{root} holds one table: save a DatasetDict with the splits train and val, or set data.splits")
    if split not in found:
        raise UserError(f"{root} has no split {split!r}: it has {', '.join(found)}; set data.splits")
    table = found[split]
    if column not in table.column_names:
        raise UserError(
            f"{root} has no column {column!r}: it has {', '.join(table.column_names)}; set data.images for the "
            "images, and data.labels.TASK.path for the labels of a task"
        )
    if not isinstance(table.features[column], datasets.Image):
        raise UserError(
            f"{root}: the column {column} holds {table.features[column]}, where pictures (Image) are expected"
        )
    return table.select_columns([column]).cast_column(column, datasets.Image(decode=False))


class HuggingFace(Folders):
    """Rows of a saved table; see `Archive` for items and errors, and `Folders` for what a config says of labels.

    ``data.images`` is the column of images, ``data.labels.TASK.path`` that of a task's labels, which may be empty in
    some rows.
    """

    DESCRIPTION = Description("hugging_face", tasks={})
    IMAGES = IMAGE
    REMEDY = "correct data.labels, or leave the task out of data.tasks"

    @classmethod
    def shares_images(cls) -> bool:
        return False

    @classmethod
    def check_places(cls, data: DataConfig | DictConfig) -> None:
        if data.lists is not None:
            raise UserError("data.lists is set, but the rows of a table are the images: leave it out")
        if strangers := sorted(set(data.splits) - set(SPLITS)):
            raise UserError(f"data.splits has {strangers[0]!r}, but there are train and val, as in {{val: validation}}")

    @classmethod
    def label_places(cls, kind: type[Task], path: str | None) -> tuple[Places, ...]:
        return ((path or kind.name,),)

    @classmethod
    def list_names(cls, root: Path, split: str) -> list[str]:
        """The numbers of a split's rows."""
        return [name_of(row) for row in range(len(cls._column(root, split, cls.IMAGES)))]

    @classmethod
    def _column(cls, root: Path, split: str, column: str) -> Any:
        if split not in SPLITS:
            raise UserError(f"{cls.DESCRIPTION.title} has no split {split!r}: it has train and val.")
        return opened(os.fspath(root), cls.FOLDERS.get(split, split), column)

    @classmethod
    def _cells(cls, root: Path, split: str, names: Sequence[str], column: str) -> list[list[Any]]:
        """The cell of each name; None of an empty one."""
        stored = cls._column(root, split, column).with_format("arrow")[:].column(column)
        # A picture that is not there is an empty cell, or one without bytes and path.
        full = [cell is not None and any(part is not None for part in cell.values()) for cell in _outlines(stored)]
        place = (os.fspath(root), cls.FOLDERS.get(split, split), column)
        return [[Cell(*place, int(name)) if full[int(name)] else None] for name in names]

    @classmethod
    def find_files(cls, root: Path, split: str, names: Sequence[str], tasks: Sequence[str]) -> Any:
        columns = {"image": cls.IMAGES, **{task: cls.FILES[task][0][0] for task in tasks}}
        found = {key: cls._cells(root, split, names, column) for key, column in columns.items()}
        missing = [
            ("image", f"{root}, {split}, row {name}")
            for name, (cell,) in zip(names, found["image"], strict=True)
            if cell is None
        ]
        without = [task for task in tasks if not any(cell for (cell,) in found[task])]
        missing += [(task, f"column {columns[task]}; not one row of {split} has a label") for task in without]
        return found, missing


def _outlines(column: Any) -> list[dict | None]:
    """Of each cell whether it has bytes and a path, without copying the bytes."""
    cells: list[dict | None] = []
    for chunk in column.chunks:
        parts = {name: chunk.field(name).is_valid().to_pylist() for name in ("bytes", "path")}
        for index, there in enumerate(chunk.is_valid().to_pylist()):
            cells.append({name: True if flags[index] else None for name, flags in parts.items()} if there else None)
    return cells

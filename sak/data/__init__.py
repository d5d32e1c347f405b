"""Data sets. `build` finds one by its name in a config."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from sak.config.schema import DataConfig, RendererConfig
from sak.errors import UserError

if TYPE_CHECKING:
    from sak.data.archive import Archive
    from sak.data.description import Description

SPLITS = ("train", "val")

# name in a config -> the class that reads it; or package.module:Class, a subclass of `Archive` of your own
DATASETS = {
    "mini_context": "sak.data.pascal_context:PascalContext",
    "pascal_context": "sak.data.pascal_context:PascalContext",
    "nyud": "sak.data.nyud:NYUDv2",
    "folders": "sak.data.own.folders:Folders",
    "hugging_face": "sak.data.own.hugging_face:HuggingFace",
}


def class_of(name: str) -> type[Archive]:
    """The class that reads a data set, as it is without a config's settings.

    Raises:
        UserError: there is no such data set.
    """
    from sak.data.archive import Archive  # only now: it loads torch
    from sak.tasks import imported

    if name not in DATASETS and ":" not in name:
        raise UserError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}, or package.module:Class of your own")
    return imported(DATASETS.get(name, name), Archive, "data.dataset")


def kind_of(data: DataConfig | DictConfig) -> type[Archive]:
    """The class that reads a config's data set, with the config's own tasks.

    Raises:
        UserError: there is no such data set or task, or it does not have what the config asks of it.
    """
    from sak.tasks import find_task

    names = [find_task(entry).name for entry in data.tasks]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"data.tasks names two tasks that are called {twice[0]!r}: give each a name of its own")
    return class_of(data.dataset).configured(data)


def described(name: str) -> Description:
    """What a data set that needs no settings says of itself.

    Raises:
        UserError: there is no such data set.
    """
    return class_of(name).DESCRIPTION


def fitting(channels: Mapping[str, int]) -> list[str]:
    """The benchmarks that have all of these tasks with these output channels, by their names in a config."""
    known = [name for name in DATASETS if described(name).benchmark == name]
    return [name for name in known if described(name).has(channels)]


def prepare(data: DataConfig | DictConfig) -> None:
    """Render the embedded data set where the config asks for it; the others must be there already."""
    if data.dataset == "mini_context":
        from sak.data import mini

        height, width = data.image_size
        if height != width:
            raise UserError(f"mini_context is rendered square, but data.image_size is [{height}, {width}]")
        mini.ensure(data.root, **rendering(data))


def rendering(data: DataConfig | DictConfig) -> dict[str, Any]:
    """What `sak.data.mini.ensure` is asked for."""
    settings = {field.name: getattr(data.renderer, field.name) for field in dataclasses.fields(RendererConfig)}
    return {"size": data.image_size[0], **settings}


def build(
    data: DataConfig | DictConfig, split: str, augment: bool = False, seed: int = 0, tasks: Sequence[str] | None = None
) -> Archive:
    """The ``train`` or ``val`` part of the config's data set, as ``prepare`` left it.

    Args:
        tasks: whose labels the samples have: none of them with (); None: the config's.

    Raises:
        UserError: the data set is unknown, or its root or files are missing.
    """
    if not Path(os.path.expanduser(data.root)).is_dir():
        raise UserError(f"data.root is {data.root}, but there is no such directory")
    from sak.tasks import find_task

    kind = kind_of(data)
    chosen = list(data.tasks if tasks is None else tasks)
    return kind(
        data.root,
        split,
        tasks=[find_task(entry).name if ":" in entry else entry for entry in chosen],
        image_size=data.image_size,
        augment=augment,
        seed=seed,
        crop_by_semseg=data.crop_by_semseg,
        normals_tolerance=data.normals_tolerance,
        scale=data.scale,
        edges_after_scaling=augment and data.edges_after_scaling,
    )

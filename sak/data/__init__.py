"""Data sets. `build` finds one by its name in a config."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from sak.config.schema import DataConfig
from sak.errors import UserError

if TYPE_CHECKING:
    from sak.data.archive import Archive

SPLITS = ("train", "val")

# name in a config -> the class that reads it, and the benchmark whose tasks it has
DATASETS = {
    "mini_context": ("sak.data.pascal_context:PascalContext", "pascal_context"),
    "pascal_context": ("sak.data.pascal_context:PascalContext", "pascal_context"),
    "nyud": ("sak.data.nyud:NYUDv2", "nyud"),
}


def benchmark(name: str) -> str:
    """The benchmark whose tasks and classes a data set has: ``pascal_context`` or ``nyud``.

    Raises:
        UserError: there is no such data set.
    """
    if name not in DATASETS:
        raise UserError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    return DATASETS[name][1]


def kind_of(name: str) -> type[Archive]:
    """The class that reads a data set.

    Raises:
        UserError: there is no such data set.
    """
    benchmark(name)
    module, _, attribute = DATASETS[name][0].partition(":")
    return getattr(importlib.import_module(module), attribute)  # only now: it loads torch


def prepare(data: DataConfig | DictConfig) -> None:
    """Render the embedded data set where the config asks for it; the others must be there already."""
    if data.dataset == "mini_context":
        from sak.data import mini

        height, width = data.image_size
        if height != width:
            raise UserError(f"mini_context is rendered square, but data.image_size is [{height}, {width}]")
        settings = data.renderer
        mini.ensure(data.root, settings.train, settings.val, size=height, seed=settings.seed, workers=None)


def build(
    data: DataConfig | DictConfig, split: str, augment: bool = False, seed: int = 0, tasks: Sequence[str] | None = None
) -> Archive:
    """The ``train`` or ``val`` part of the config's data set, as ``prepare`` left it.

    Args:
        tasks: whose labels the samples have: none of them with (); None: the config's.

    Raises:
        UserError: the data set is unknown, or its root or files are missing.
    """
    kind = kind_of(data.dataset)
    if not Path(os.path.expanduser(data.root)).is_dir():
        raise UserError(f"data.root is {data.root}, but there is no such directory")
    chosen = list(data.tasks if tasks is None else tasks)
    return kind(
        data.root,
        split,
        tasks=chosen,
        image_size=data.image_size,
        augment=augment,
        seed=seed,
        crop_by_semseg=data.crop_by_semseg,
        normals_tolerance=data.normals_tolerance,
    )

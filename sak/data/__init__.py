"""Data sets. `build` finds one by its name in a config."""

from pathlib import Path

from torch.utils.data import Dataset

from sak.config.schema import DataConfig
from sak.data.nyud import NYUDv2
from sak.data.pascal_context import PascalContext
from sak.errors import UserError

# name in a config -> the class that reads it, and the benchmark whose tasks it has
DATASETS = {
    "mini_context": (PascalContext, "pascal_context"),
    "pascal_context": (PascalContext, "pascal_context"),
    "nyud": (NYUDv2, "nyud"),
}


def benchmark(name: str) -> str:
    """The benchmark whose tasks and classes a data set has: ``pascal_context`` or ``nyud``.

    Raises:
        UserError: there is no such data set.
    """
    if name not in DATASETS:
        raise UserError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    return DATASETS[name][1]


def prepare(data: DataConfig) -> None:
    """Render the embedded data set where the config asks for it; the others must be there already."""
    if data.dataset == "mini_context":
        from sak.data import mini

        height, width = data.image_size
        if height != width:
            raise UserError(f"mini_context is rendered square, but data.image_size is [{height}, {width}]")
        settings = data.renderer
        mini.ensure(data.root, settings.train, settings.val, size=height, seed=settings.seed, workers=None)


def build(data: DataConfig, split: str, augment: bool = False, seed: int = 0) -> Dataset:
    """The ``train`` or ``val`` part of the config's data set, as ``prepare`` left it.

    Raises:
        UserError: the data set is unknown, or its root or files are missing.
    """
    benchmark(data.dataset)
    if not Path(data.root).is_dir():
        raise UserError(f"data.root is {data.root}, but there is no such directory")
    kind, _ = DATASETS[data.dataset]
    return kind(data.root, split, tasks=list(data.tasks), image_size=tuple(data.image_size), augment=augment, seed=seed)

"""Samples of several kinds in one data set, each a function of the seed and its index alone."""

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import Dataset

from sak.config.vocabulary import KINDS, VocabularyDataConfig
from sak.data import mini
from sak.data.pascal_context import PascalContext
from sak.data.transforms import finish
from sak.errors import UserError, printable, shown
from sak.vocabulary.data.charts import Charts
from sak.vocabulary.data.detection import Detection, Expressions
from sak.vocabulary.data.drawn import DrawnScenes
from sak.vocabulary.data.objects import CocoScenes, PartScenes, Scenes
from sak.vocabulary.data.pages import TextPages
from sak.vocabulary.data.pdf import PdfPages
from sak.vocabulary.data.source import FULL, Growth, Source
from sak.vocabulary.pictures import square

SPLITS = ("train", "val")


class Mixture(Dataset):
    """Items: {"image": float32 (3, H, W) in [0, 1], "prompt": str, "answer": str, "name": str, "kind": str}.

    Nothing is kept but what is asked for: an item is rendered or read when it is. What a source shows comes in turn,
    each thing as often as the others, and in an order of its own.

    Args:
        sources: {kind: where its samples come from}.
        shares: {kind: its share, of their sum}.
        side: pixels, height = width.
    """

    def __init__(
        self, sources: Mapping[str, Source], shares: Mapping[str, float], length: int, side: int, split: str, seed: int
    ):
        self.sources, self.side, self.split, self.seed = dict(sources), side, split, seed
        self.kinds = tuple(sources)
        part = SPLITS.index(split)
        weights = np.array([shares[kind] for kind in self.kinds], np.float64)
        rng = np.random.default_rng([seed, part])
        self.kind_of = rng.choice(len(self.kinds), length, p=weights / weights.sum()).astype(np.int8)
        self.rank = np.zeros(length, np.int64)  # among those of its kind
        for number in range(len(self.kinds)):
            mine = self.kind_of == number
            self.rank[mine] = np.arange(mine.sum())
        self.orders = {kind: rng.permutation(len(source)) for kind, source in self.sources.items()}

    def __len__(self) -> int:
        return len(self.kind_of)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return finish(self.packed(index))

    def packed(self, index: int) -> dict[str, Any]:
        """The item with "pixels", uint8 (3, H, W), before `sak.data.transforms.finish`."""
        index = range(len(self))[index]  # refuses what is out of range, counts negative ones from the end
        kind, rank = self.kinds[self.kind_of[index]], int(self.rank[index])
        order = self.orders[kind]
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        drawn = self.sources[kind].sample(int(order[rank % len(order)]) if len(order) else rank, rng)
        pixels = torch.from_numpy(square(drawn.image, self.side).transpose(2, 0, 1).copy())
        return {
            "pixels": pixels,
            "prompt": printable(drawn.prompt),
            "answer": printable(drawn.answer),
            "name": f"{self.split}_{kind}_{index:06d}",
            "kind": kind,
        }


def mixture(data: VocabularyDataConfig | DictConfig, split: str) -> Mixture:
    """What `sak.vocabulary.data.build` says."""
    settings = cast(VocabularyDataConfig, OmegaConf.to_object(data) if isinstance(data, DictConfig) else data)
    if split not in SPLITS:
        raise UserError(f"vocabulary.data has no split {shown(split)!r}: it has train and val")
    wanted = {kind: share for kind, share in settings.kinds.items() if share > 0}
    for kind in wanted:
        if kind not in KINDS:
            nearest = difflib.get_close_matches(kind, KINDS, n=1)
            meant = f" (did you mean {nearest[0]}?)" if nearest else ""
            known = ", ".join(KINDS)
            raise UserError(f"vocabulary.data.kinds names {shown(kind)!r}{meant}, but the kinds are {known}")
    if not wanted:
        raise UserError(f"vocabulary.data.kinds is empty: give shares to some of {', '.join(KINDS)}")
    val, side = split == "val", settings.image_size
    growth = growth_of(settings, split)
    makers: dict[str, Callable[[], Source]] = {
        "text": lambda: TextPages(settings.pages, side, val, growth),
        "detection": lambda: Detection(scenes(settings, split)),
        "expression": lambda: Expressions(scenes(settings, split)),
        "chart": lambda: Charts(side, val),
        "pdf": lambda: PdfPages(_needed(settings.pdfs, "pdfs", "a folder of PDF files"), side, val),
    }
    length = settings.val if val else settings.train
    return Mixture({kind: makers[kind]() for kind in wanted}, wanted, length, side, split, settings.seed)


def scenes(settings: VocabularyDataConfig, split: str) -> Scenes:
    """Where a config finds objects.

    Raises:
        UserError: it is nowhere.
    """
    objects, least = settings.objects, settings.least_object
    if objects == "drawn":
        return DrawnScenes(settings.image_size, split == "val", settings.things, growth_of(settings, split))
    root = Path(_needed(settings.root, "root", f"the folder of {objects}, or of its images")).expanduser()
    if objects in ("mini_context", "pascal_context"):
        if objects == "mini_context":
            counts = settings.scenes, max(1, settings.scenes // 4)
            mini.ensure(root, *counts, size=settings.image_size, seed=settings.seed)
        return PartScenes(PascalContext(root, split, ("human_parts",), (settings.image_size,) * 2), least)
    part = settings.splits.get(split, split)
    file = Path(objects.replace("{split}", part)).expanduser()
    if not file.is_file():
        known = "drawn, mini_context, pascal_context, or a JSON file in COCO's format"
        raise UserError(f"vocabulary.data.objects is {shown(objects)!r}, but must be {known}; there is none at {file}")
    return CocoScenes(file, Path(str(root).replace("{split}", part)), least)


def growth_of(settings: VocabularyDataConfig, split: str) -> Growth:
    """Val has its full length and number from the start."""
    start, end = settings.growth
    return FULL if split == "val" else (start, end)


def _needed(value: str | None, key: str, what: str) -> str:
    if value is None:
        raise UserError(f"vocabulary.data.{key} is null, but is needed: {what}")
    return value

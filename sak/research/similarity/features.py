"""How alike the features of frozen models and of a student's sources are, level by level.

Legend: B batch, D width, h, w a model's grid, H, W canvas, M models, L levels.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from omegaconf import DictConfig
from torch import Tensor, nn

from sak.bundles.build import build_pictures
from sak.bundles.bundle import find_bundle, load_student
from sak.data import SPLITS, loading
from sak.errors import UserError
from sak.evaluation.distributed import build_accelerator
from sak.evaluation.evaluate import to_device
from sak.evaluation.sources import Sources, tokens_inside
from sak.files import write_json
from sak.metrics.similarity import Moments, linear_cka, linear_reconstruction
from sak.plotting import colour_bar, heat_map, save
from sak.progress import progress_bar
from sak.research.frozen_models import build_models, models_to_probe

TITLES = {
    "cka": "linear CKA",
    "reconstruction": "R² of the row from the column",
}


def compare(config: DictConfig, student: str | None = None, images: int = 300, batch_size: int = 16) -> Path:
    """Linear CKA and linear reconstruction between the probed models of a config and the sources of a student.

    Linear maps are fitted on images of "train"; both measures are taken on images of "val". A sample is a token; maps
    of different grids are averaged down to the coarsest one of the level, and tokens in the padding do not count.

    Args:
        student: a run or a bundle; None: the models alone.
        images: of each split, evenly spread.

    Returns:
        the figure; `similarity.json` with all numbers lies beside it.

    Raises:
        UserError: there is nothing to compare, the models differ in their number of levels, or the student cannot be
            read.
    """
    if images < 1:
        raise UserError(f"--images is {images}, but must be at least 1")
    models = build_models(models_to_probe(config))
    sources = Sources(load_student(find_bundle(student))) if student else None
    levels = {name: len(model.levels) for name, model in models.items()}
    if sources:
        levels["the student"] = len(sources.student.levels)
    if len(set(levels.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in levels.items())
        raise UserError(f"features are compared level by level, but the models have different numbers: {counts}")
    if len(models) + (1 + len(sources.student.paths) if sources else 0) < 2:
        raise UserError("there are no two models to compare: add teachers or probe.extra to the config, or a student")
    datasets = {split: build_pictures(config, split) for split in SPLITS}
    device = build_accelerator().device
    modules = nn.ModuleDict(models).to(device)
    if sources:
        sources.to(device)

    def seen(pixels: Tensor) -> dict[str, list[Tensor]]:
        maps = {name: model(pixels) for name, model in modules.items()}
        return maps | sources(pixels) if sources else maps

    moments, names = collect(seen, datasets, images, batch_size, config.data.workers, device)
    result = {
        "models": names,
        "images": {split: min(images, len(datasets[split])) for split in SPLITS},
        "cka": [linear_cka(held).tolist() for held in moments["val"]],
        "reconstruction": [
            linear_reconstruction(fitted, held).tolist()
            for fitted, held in zip(moments["train"], moments["val"], strict=True)
        ],
    }
    path = Path(config.output) / f"{config.name}-similarity"
    write_json(path / "similarity.json", result)
    save(heat_maps(result), path / "similarity.png")
    return path / "similarity.png"


def collect(
    models: Callable[[Tensor], Mapping[str, Sequence[Tensor]]],
    datasets: Mapping[str, loading.Samples],
    images: int,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> tuple[dict[str, list[Moments]], list[str]]:
    """({split: moments of each level}, the models' names), of tokens as `compare` takes them.

    Args:
        models: images -> {model: a map of each level}.
        datasets: {split: pictures}; maps are fitted on those of "train".
        images: of each split, evenly spread.

    Raises:
        UserError: they have too few tokens to fit linear maps.
    """
    moments: dict[str, list[Moments]] = {}
    for split, dataset in datasets.items():
        for batch in _batches(dataset, images, batch_size, workers, f"features of {split}"):
            pixels = to_device(batch, device)["image"]
            maps = models(pixels)
            names = list(maps)
            for level, features in enumerate(zip(*maps.values(), strict=True)):
                if split not in moments:
                    moments[split] = []
                if level == len(moments[split]):
                    moments[split].append(Moments([part.shape[1] for part in features]))
                moments[split][level].update(_samples(features, batch["size"], pixels.shape[-2:]))
    tokens, widest = moments["train"][-1].count, max(part.stop - part.start for part in moments["train"][-1].parts)
    if tokens <= widest:
        raise UserError(f"{tokens} tokens are too few to fit linear maps of {widest} channels; ask for more --images")
    return moments, names


def heat_maps(result: Mapping) -> Figure:
    """A row of panels for each level, a column for each measure: cells in percent, on one scale, as wide as a page."""
    names, count = result["models"], len(result["cka"])
    figure = Figure(figsize=(9.2, 1.5 + (0.35 + 0.25 * len(names)) * count), dpi=100, layout="constrained")
    axes = figure.subplots(count, len(TITLES), squeeze=False, sharex=True, sharey=True)
    for column, (measure, title) in enumerate(TITLES.items()):
        for level in range(count):
            values = 100 * np.array(result[measure][level])
            text = [[f"{value:.0f}" for value in row] for row in values]
            place = f"level {level + 1} of {count}: {title}"
            heat = heat_map(axes[level, column], values, text, names, names, place, (0, 100), rotation=90, size=7.5)
    colour_bar(figure, heat, axes, "%", share=1 / count)
    return figure


def _batches(dataset: loading.Samples, images: int, batch_size: int, workers: int, title: str) -> Iterator[dict]:
    chosen = loading.evenly_spread(len(dataset), images)
    batches = [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
    with progress_bar(len(chosen), title) as progress:
        for batch in loading.load(dataset, batches, workers):
            yield batch
            progress.update(len(batch["name"]))


def _samples(features: Sequence[Tensor], sizes: Sequence[Tensor], canvas: Sequence[int]) -> list[Tensor]:
    """Maps (B, D, h, w) of several models -> (N, D) each: tokens of the coarsest grid whose centre is in the image.

    Args:
        sizes: heights and widths of the images on their canvas, (B,) each.
    """
    h, w = min((maps.shape[-2:] for maps in features), key=math.prod)
    chosen = tokens_inside(sizes, (h, w), canvas).to(features[0].device)
    return [F.adaptive_avg_pool2d(maps.float(), (h, w)).permute(0, 2, 3, 1)[chosen] for maps in features]

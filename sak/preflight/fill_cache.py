"""Filling the caches of the teachers' features ahead of training, by any number of processes."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from tqdm import tqdm

from sak import data
from sak.bundles.build import build_committee, build_labelled, build_training_set
from sak.config.derived import asks, number_of_steps
from sak.config.schema import STAGES
from sak.data import loading
from sak.data.archive import Archive
from sak.data.faulty_images import Skips, build_skips
from sak.data.images import Images
from sak.distillation.cached_features import CachedFeatures, Views, build_caches, stage_is_cached
from sak.errors import UserError
from sak.evaluation.distributed import build_accelerator, settled
from sak.evaluation.evaluate import to_device
from sak.progress import progress_bar
from sak.training.batches import TrainingBatches
from teachers.cache import FILLED, allocate

BLOCK = 32  # batches, after which a process looks at what the others have done


def fill(config: DictConfig, part: tuple[int, int] | None = None, verify: bool = False) -> str:
    """Compute all features that the steps of the config's stages will ask for and that are not stored yet.

    Several processes share the work: each begins at its own part, then goes on with what the others have not done.

    Args:
        part: (k, n): begin at the k-th, from 0, of n parts of each view; None: by the rank among torchrun's processes.
        verify: read all of it that is stored, and compute corrupt records anew.

    Returns:
        what was done, a line for each stage.

    Raises:
        UserError: something in the config or the data is wrong, there is nothing to cache, or the disk is too small.
        KeyboardInterrupt: the user stopped it; what was stored is kept.
    """
    stages = [stage for stage in STAGES if stage_is_cached(config, stage)]
    if not stages:
        raise UserError("nothing to cache: set cache.path, and in cache.stages a stage that takes part and distils")
    config = settled(config)
    accelerator = build_accelerator(config.precision)
    part = part or (accelerator.process_index, accelerator.num_processes)
    needed = [name for name in config.teachers if any(name in asks(config, stage) for stage in stages)]
    committee = build_committee(config, needed).to(accelerator.device)
    labelled = functools.cache(lambda: build_labelled(config))
    with accelerator.main_process_first():
        if stages != ["distill"] or config.stages.distill.images is None:
            data.prepare(config.data)
        sets = {stage: build_training_set(config, stage, labelled, accelerator.print) for stage in stages}
    caches = {
        stage: build_caches(config, stage, images.image_files, committee, images.crop_files)
        for stage, images in sets.items()
    }
    allocate([cache for of_stage in caches.values() for cache in of_stage.values()], accelerator.print)
    features = {stage: CachedFeatures(committee, caches[stage]) for stage in stages}
    count = config.cache.views
    asked = {stage: _asked(config, stage, images) for stage, images in sets.items()}
    total = sum(len(indices) for of_stage in asked.values() for indices in of_stage.values())
    progress = progress_bar(total, "features", shown=accelerator.is_local_main_process)
    try:
        with progress, loading.watching_workers():
            for stage, view in ((stage, view) for stage, of_stage in asked.items() for view in of_stage):
                views = Views(sets[stage], count, caches[stage])
                views.set_epoch(view)
                batch_size, skips = config.stages[stage].batch_size, _skips(config, stage, len(views))
                for block in _blocks(asked[stage][view], batch_size, part):
                    missing = _missing(views, block, verify)
                    _skip(progress, len(block) - len(missing))
                    batches = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]
                    if not batches:
                        continue
                    for batch in loading.load(views, batches, config.data.workers, config.data.timeout, skips):
                        with accelerator.autocast():
                            features[stage].complete(to_device(batch, accelerator.device))
                        progress.update(len(batch["index"]))
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; what was stored is kept: the same command goes on from there") from None
    return "\n".join(f"{stage}: {of_stage.summary()}" for stage, of_stage in features.items())


def _skips(config: DictConfig, stage: str, images: int) -> Skips | None:
    """As in training, which has a list of its own."""
    return build_skips(config.data, Path(config.cache.path) / stage / "skipped.txt", stage, images, replaced=True)


def _asked(config: DictConfig, stage: str, images: Archive | Images) -> dict[int, list[int]]:
    """{view: indices of the images that the stage's steps see in it, in the data set's order}."""
    settings, seen = config.stages[stage], dict[int, np.ndarray]()
    batches = TrainingBatches(images, settings.batch_size, 1, config.seed, workers=0, rank=0, world=1)
    for epoch, indices in batches.images(number_of_steps(settings, len(images))):
        seen.setdefault(epoch % config.cache.views, np.zeros(len(images), bool))[indices] = True
    return {view: np.flatnonzero(of_view).tolist() for view, of_view in seen.items()}


def _blocks(images: Sequence[int], batch_size: int, part: tuple[int, int]) -> list[Sequence[int]]:
    """The images' indices in blocks of some batches, those of the part first."""
    k, n = part
    size = min(BLOCK * batch_size, -(-len(images) // n))
    blocks = [images[start : start + size] for start in range(0, len(images), size)]
    first = k * len(blocks) // n
    return blocks[first:] + blocks[:first]


def _missing(views: Views, block: Sequence[int], verify: bool) -> list[int]:
    """The indices that at least one teacher's record lacks or, where they are verified, is corrupt."""
    caches = views.caches.values()
    if verify:
        return [index for index in block if any(cache.read(views.view, index)[0] != FILLED for cache in caches)]
    filled = [cache.filled(views.view, block) for cache in caches]
    return [index for index, *found in zip(block, *filled, strict=True) if not all(found)]


def _skip(progress: tqdm, count: int) -> None:
    """Count what is there already, without taking it for speed."""
    progress.initial += count
    progress.n += count
    progress.last_print_n += count
    progress.refresh()

"""Training on a fixed number of views of each image, with the teachers' features of these views on disk.

What a resumed run sees is what it would have seen: features are used as they are stored, from the first time on, and
what a teacher computes together does not depend on when a run was killed.
"""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import Dataset

from sak.config.derived import asks, image_size, model_spec
from sak.config.schema import mixed_precision, plain
from sak.data.archive import Archive
from sak.data.images import Images
from sak.data.loading import packed
from sak.data.transforms import SCALE, finish
from teachers import Committee
from teachers.cache import CORRUPT, EMPTY, FILLED, WRITTEN, TeacherCache
from teachers.fingerprints import contents_hash, files_hash, spec_facts, teacher_facts

Caches = Mapping[str, TeacherCache]  # by the teacher's name


class Views(Dataset):
    """A data set whose augmentation comes round again after `count` epochs; with what caches hold of each sample.

    Items get "view" and "index", and for each teacher the bytes of its record ("cache/NAME", uint8) and the record's
    state ("cache/NAME/state").

    Args:
        dataset: its augmentation is a function of seed, epoch and index alone; view v is that of epoch v.
    """

    def __init__(self, dataset: Archive | Images, count: int, caches: Caches):
        self.dataset, self.count, self.caches = dataset, count, caches
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self.view = epoch % self.count
        self.dataset.set_epoch(self.view)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        return finish(self.packed(index))

    def packed(self, index: int) -> dict:
        """The item before `finish`: see `sak.data.loading.packed`."""
        sample = {**packed(self.dataset, index), "view": self.view, "index": index}
        for name, cache in self.caches.items():
            state, content = cache.read(self.view, index)
            sample |= {f"cache/{name}": torch.from_numpy(content), f"cache/{name}/state": state}
        return sample


class CachedFeatures:
    """The teachers' features of a batch of `Views`: read where they are stored, else computed, stored and read.

    Attributes:
        computed: {teacher: records that it computed}.
        corrupt: records whose checksum was wrong.
    """

    def __init__(self, committee: Committee, caches: Caches):
        self.committee, self.caches = committee, caches
        self.computed = dict.fromkeys(caches, 0)
        self.corrupt = 0

    def __call__(self, batch: Mapping) -> dict[str, list[Tensor]]:
        """{teacher: [float32 (B, D, h, w) per level]}"""
        self.complete(batch)
        return {name: cache.decode(batch[f"cache/{name}"]) for name, cache in self.caches.items()}

    def complete(self, batch: Mapping) -> None:
        """Compute and store the records that the batch lacks, and put them into it."""
        for name, cache in self.caches.items():
            states = batch[f"cache/{name}/state"]
            view, indices = batch["view"], batch["index"]
            if any(state in (EMPTY, CORRUPT) for state in states):
                # A batch with records that are WRITTEN beside EMPTY ones was being stored when a run was killed. All
                # of them are computed again, together as then: other company may change a result's last bits.
                places = [place for place, state in enumerate(states) if state != FILLED]
                self._note_corrupt(cache, states.count(CORRUPT))
                content = cache.encode(self.committee[name](batch["image"][places]))
                content = cache.write(int(view[0]), indices[places].tolist(), content)  # or what others stored
                batch[f"cache/{name}"][places] = torch.from_numpy(content).to(view.device)
                self.computed[name] += len(places)
            elif WRITTEN in states:
                written = [place for place, state in enumerate(states) if state == WRITTEN]
                cache.commit(int(view[0]), indices[written].tolist())

    def summary(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.computed.items())
        replaced = f"; {self.corrupt} records were corrupt and replaced" if self.corrupt else ""
        return f"features computed: {counts}{replaced}"

    def _note_corrupt(self, cache: TeacherCache, count: int) -> None:
        if count and not self.corrupt:
            warnings.warn(
                f"{cache.directory} holds a corrupt record (its checksum is wrong): it is computed anew, as are others "
                "that may follow",
                stacklevel=4,
            )
        self.corrupt += count


def stage_is_cached(config: DictConfig, stage: str) -> bool:
    """Whether the stage takes part, asks frozen models, and keeps what they say."""
    return config.cache.path is not None and stage in config.cache.stages and bool(asks(config, stage))


def build_caches(
    config: DictConfig, stage: str, files: Sequence, committee: Committee, crop_files: Sequence[Path] = ()
) -> dict[str, TeacherCache]:
    """A stage's caches, one for each teacher, so that a teacher that changes leaves the others' features valid.

    Args:
        files: the images, in the data set's order.
        committee: the built teachers, whose weights and code are part of the key.
        crop_files: the label maps that decide where the images are cropped.
    """
    settings, size = config.stages[stage], image_size(config, stage)
    augmentation: dict[str, Any]
    if stage == "distill":
        augmentation = {"crop_scale": list(settings.crop_scale), **({"upright": True} if settings.images else {})}
    else:
        data = config.data
        augmentation = {"augment": settings.augment, "dataset": data.dataset, "tasks": list(data.tasks)}
        if data.crop_by_semseg:
            augmentation["crop_by_semseg"] = True
        if tuple(data.scale) != SCALE:
            augmentation["scale"] = list(data.scale)
        if data.labels:  # which decide what the files of the crop mean
            augmentation["labels"] = plain(data.labels)
    if crop_files:
        augmentation["crop_files"] = contents_hash(crop_files)
    depends = {
        "files": files_hash(files),
        "image_size": list(size),
        "seed": config.seed,
        **augmentation,
        "precision": mixed_precision(config.precision),
    }
    caches = {}
    for name, teacher in committee.items():
        spec = spec_facts(dataclasses.asdict(model_spec(config, name)))
        del spec["weights"], spec["revision"]  # where the weights are from: what they are is hashed
        caches[name] = TeacherCache(
            Path(config.cache.path) / stage,
            name,
            [(dim, *teacher.grid(*size, level)) for level, dim in enumerate(teacher.dims)],
            len(files),
            config.cache.views,
            config.cache.dtype,
            {**depends, "spec": spec, **teacher_facts(teacher, size)},
        )
    return caches

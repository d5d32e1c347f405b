"""What is probed: the images of both splits, seen once by each frozen model, and their labels."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from accelerate import Accelerator
from omegaconf import DictConfig

from sak import data
from sak.data import SPLITS
from sak.research.probing.features import Features, Probed
from teachers import MultiScale, Teacher
from teachers.fingerprints import names_hash


class Samples:
    """
    Raises:
        UserError: the data set or its files are missing.
    """

    def __init__(self, config: DictConfig, tasks: Iterable[str]):
        self.config = config
        data.prepare(config.data)
        self.images = {split: data.build(config.data, split, tasks=()) for split in SPLITS}
        self.labels = {
            task: {split: data.build(config.data, split, tasks=[task]).without_images() for split in SPLITS}
            for task in tasks
        }

    @property
    def hashes(self) -> dict[str, str]:
        """{split: of the names of its images}"""
        return {split: names_hash(images.image_files) for split, images in self.images.items()}

    def features(
        self,
        model: Teacher | MultiScale,
        place: Path,
        origin: Mapping[str, object],
        title: str,
        accelerator: Accelerator,
    ) -> Features:
        """A model's features of all images, extracted as far as they are missing.

        Args:
            place: of the folder, whose name is followed by a part of the hash of `origin`.
            origin: what the features depend on.
            title: of the model, for people.

        Raises:
            UserError: the disk is too small.
            FloatingPointError: a feature is no number of half precision.
        """
        height, width = self.config.data.image_size
        shapes = [(dim, *model.grid(height, width, level)) for level, dim in enumerate(model.dims)]
        counts = {split: len(images) for split, images in self.images.items()}
        key = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:8]
        features = Features(place.with_name(f"{place.name}-{key}"), shapes, counts)
        workers = self.config.data.workers
        model.to(accelerator.device)
        features.extract(model, self.images, self.config.probe.batch_size, workers, accelerator, title)
        model.cpu()
        return features

    def with_labels(self, features: Features, task: str) -> dict[str, Probed]:
        return {split: Probed(features, split, self.labels[task][split]) for split in SPLITS}

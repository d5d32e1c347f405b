"""What the paths learn in each stage: the teachers' features, computed or kept on disk, and standardised if asked."""

from collections.abc import Mapping, Sequence

from accelerate import Accelerator
from omegaconf import DictConfig
from torch import Tensor

from sak.config.derived import distils, frozen_backbone
from sak.data.archive import Archive
from sak.data.images import Images
from sak.distillation.cached_features import CachedFeatures, Views, build_caches, stage_is_cached
from sak.distillation.standardisation import Standardiser
from sak.training import objectives
from sak.training.batches import TrainingBatches
from sak.training.standardising import build_standardiser
from teachers import Committee
from teachers.cache import allocate


class Teaching:
    """
    Args:
        committee: the teachers that the training asks, or the frozen backbone that it reads; None: there are none.

    Attributes:
        cached: by stage, of those whose features are kept.
        standardisers: by kind, of those in use so far: the stages share the statistics of one kind.
    """

    def __init__(self, config: DictConfig, committee: Committee | None, accelerator: Accelerator):
        self.config, self.committee, self.accelerator = config, committee, accelerator
        self.cached: dict[str, CachedFeatures] = {}
        self.standardisers: dict[str, Standardiser] = {}

    def seen(self, stage: str, dataset: Archive | Images) -> Archive | Images | Views:
        """A stage's training images as it is to see them: in views and with the caches' records, if the config says so.

        Raises:
            UserError: a cache cannot be used.
        """
        if self.committee is not None and stage_is_cached(self.config, stage):
            caches = build_caches(self.config, stage, dataset.image_files, self.committee, dataset.crop_files)
            self.cached[stage] = CachedFeatures(self.committee, caches)
        if self.config.cache.views is None or stage not in self.config.cache.stages:
            return dataset
        return Views(dataset, self.config.cache.views, self.cached[stage].caches if stage in self.cached else {})

    def allocate(self) -> None:
        """Make room on the disk for the caches of all stages seen.

        Raises:
            UserError: the disk is too small.
        """
        if self.cached:
            caches = [cache for features in self.cached.values() for cache in features.caches.values()]
            allocate(caches, self.accelerator.print)

    def features(self, stage: str, batches: TrainingBatches) -> objectives.Features | None:
        """What gives a batch's features, for a stage that begins or goes on; None where it does not distil.

        Standardised with the statistics of the run so far, if it has any of the stage's kind.

        Args:
            batches: of the stage, which statistics are taken from.

        Raises:
            UserError: as of `build_standardiser`.
        """
        if self.committee is None or not distils(self.config, stage):
            return None
        features = self.cached.get(stage) or objectives.of_images(self.committee)
        kind = self.config.stages[stage].standardise
        if kind == "none":
            return features
        if kind not in self.standardisers:
            self.standardisers[kind] = build_standardiser(
                self.config, stage, self.committee, features, batches, self.accelerator
            )
        return objectives.standardised(features, self.standardisers[kind])

    def known(self, stage: str) -> objectives.Features | None:
        """What gives the maps that a frozen backbone makes of a batch; None where they are not kept."""
        return self.cached.get(stage) if frozen_backbone(self.config) else None

    def learned(self, images: Tensor) -> Mapping[str, Sequence[Tensor]]:
        """What the first stage's paths learn of images (B, 3, H, W): {teacher: [per level (B, D_t, h, w)]}."""
        assert self.committee is not None  # who asks knows that there is one
        features = self.committee(images)
        kind = self.config.stages.distill.standardise
        return self.standardisers[kind](features) if kind in self.standardisers else features

    def summary(self, stage: str) -> str | None:
        """What the stage's caches were good for, if it has any."""
        return self.cached[stage].summary() if stage in self.cached else None

    def states(self) -> dict[str, dict]:
        """{kind: its statistics}, for a checkpoint."""
        return {kind: standardiser.state_dict() for kind, standardiser in self.standardisers.items()}

    def load_states(self, states: Mapping[str, Mapping]) -> None:
        dims = self.committee.dims if self.committee is not None else {}
        for kind, content in states.items():
            self.standardisers[kind] = Standardiser(kind, dims).to(self.accelerator.device)
            self.standardisers[kind].load_state_dict(content, strict=True)

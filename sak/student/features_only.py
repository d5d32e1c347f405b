"""A student as the backbone of something else: timm's ``features_only``, with the source to choose.

Shapes: B batch, D stem width, H,W image, h,w token grid.
"""

from collections.abc import Sequence

import torch
from timm.models import FeatureInfo
from torch import Tensor, nn

from sak.student.student import Student


class FeaturesOnly(nn.Module):
    """RGB images (B,3,H,W) in [0,1] -> maps (B, D, h, w) of the student's levels, all of the patch's stride.

    What the source does not need, as heads and routers of other tasks, is not computed.

    Args:
        source: as of ``Student.features``.
        out_indices: of the student's levels, counted from 0 or from the end; None: all of them.
        frozen: the student's weights rest, in eval mode and without gradients.

    Attributes:
        feature_info: timm's: ``channels()``, ``reduction()``, ``module_name()`` of the maps.

    Raises:
        ValueError: there is no such source or level.
    """

    def __init__(
        self, student: Student, source: str = "stem", out_indices: Sequence[int] | None = None, frozen: bool = False
    ):
        super().__init__()
        known = ("stem", *student.paths, *student.heads)
        if source not in known:
            raise ValueError(f"unknown source {source!r} of features; known: {', '.join(known)}")
        count = len(student.levels)
        if beyond := [index for index in out_indices or () if not -count <= index < count]:
            raise ValueError(f"out_indices has {beyond[0]}, but the student has {count} levels")
        self.student, self.source, self.frozen = student, source, frozen
        self.out_indices = [index % count for index in (range(count) if out_indices is None else out_indices)]
        described = [
            {"num_chs": student.stem.width, "reduction": student.stem.patch_size, "module": f"{source}.block{block}"}
            for block in student.levels
        ]
        self.feature_info = FeatureInfo(described, tuple(self.out_indices))
        if frozen:
            student.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "FeaturesOnly":
        super().train(mode and not self.frozen)
        self.training = mode
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            levels = self.student.features(images, self.source)
        return [levels[index] for index in self.out_indices]

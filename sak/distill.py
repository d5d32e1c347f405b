"""Distillation losses between the student's paths and the teachers' features.

Shapes: B batch, D_t teacher width, h,w grid; L levels.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cos between the whole flattened maps (D_t·h·w) of each image, averaged over the batch."""
    return 1 - F.cosine_similarity(student.flatten(1), teacher.flatten(1), dim=1).mean()


def cosine_and_smooth_l1(student: Tensor, teacher: Tensor) -> Tensor:
    """0.9 · cosine + 0.1 · SmoothL1 with β = 1 (SAK, arXiv 2410.14633; after AM-RADIO, arXiv 2312.06709)."""
    return 0.9 * cosine(student, teacher) + 0.1 * F.smooth_l1_loss(student, teacher, beta=1.0)


LOSSES = {"cos+l1": cosine_and_smooth_l1, "cos": cosine, "l2": F.mse_loss}


def match_grids(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Resize the map with the smaller grid bilinearly to the larger one's."""
    if student.shape[-2:] == teacher.shape[-2:]:
        return student, teacher
    if student.shape[-2:].numel() < teacher.shape[-2:].numel():
        return F.interpolate(student, teacher.shape[-2:], mode="bilinear", align_corners=False), teacher
    return student, F.interpolate(teacher, student.shape[-2:], mode="bilinear", align_corners=False)


def distillation_terms(
    paths: Mapping[str, Sequence[Tensor]], features: Mapping[str, Sequence[Tensor]], loss: str = "cos+l1"
) -> dict[str, Tensor]:
    """{"teacher/level": loss} for every teacher and level, in float32; the distillation loss is their sum.

    Args:
        paths: {teacher: [per level (B, D_t, h, w)]} of the student.
        features: the same of the teachers; their grids may differ from the student's.
        loss: a name of ``LOSSES``.
    """
    function = LOSSES[loss]
    terms = {}
    for teacher, maps in paths.items():
        for level, (ours, theirs) in enumerate(zip(maps, features[teacher], strict=True)):
            terms[f"{teacher}/{level}"] = function(*match_grids(ours.float(), theirs.float()))
    return terms


def total(terms: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()

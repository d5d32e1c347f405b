"""Distillation losses between the student's paths and the teachers' features.

Shapes: B batch, D_t teacher width, h,w grid; L levels.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-12  # of squared norms, as published: an empty map has a cosine of 0


def cosine_similarity(x: Tensor, y: Tensor, dim: int) -> Tensor:
    """cos along an axis, by plain sums: torch's own is off by 1e-4 at 3 million float32 elements on CPUs."""
    product, of_x, of_y = ((a * b).sum(dim=dim) for a, b in ((x, y), (x, x), (y, y)))
    return product / ((of_x + EPSILON) * (of_y + EPSILON)).sqrt()


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cos between the whole flattened maps (D_t·h·w) of each image, averaged over the batch."""
    return 1 - cosine_similarity(student.flatten(1), teacher.flatten(1), dim=1).mean()


def cosine_and_smooth_l1(student: Tensor, teacher: Tensor) -> Tensor:
    """0.9 · cosine + 0.1 · SmoothL1 with β = 1 (SAK, arXiv 2410.14633; after AM-RADIO, arXiv 2312.06709)."""
    return 0.9 * cosine(student, teacher) + 0.1 * F.smooth_l1_loss(student, teacher, beta=1.0)


def token_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cos between the features (D_t) of each token, averaged over tokens and batch (UNIC, arXiv 2408.05088)."""
    return 1 - cosine_similarity(student, teacher, dim=1).mean()


def token_cosine_and_smooth_l1(student: Tensor, teacher: Tensor) -> Tensor:
    """0.9 · token_cosine + 0.1 · SmoothL1 with β = 1: the published weights, on the cosine of every token."""
    return 0.9 * token_cosine(student, teacher) + 0.1 * F.smooth_l1_loss(student, teacher, beta=1.0)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cos+l1": cosine_and_smooth_l1,
    "cos": cosine,
    "l2": F.mse_loss,
    "token_cos+l1": token_cosine_and_smooth_l1,
    "token_cos": token_cosine,
}


def match_grids(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Resize the map with the smaller grid bilinearly to the larger one's."""
    if student.shape[-2:] == teacher.shape[-2:]:
        return student, teacher
    if student.shape[-2:].numel() < teacher.shape[-2:].numel():
        return F.interpolate(student, teacher.shape[-2:], mode="bilinear", align_corners=False), teacher
    return student, F.interpolate(teacher, student.shape[-2:], mode="bilinear", align_corners=False)


def distillation_terms(
    paths: Mapping[str, Sequence[Tensor]],
    features: Mapping[str, Sequence[Tensor]],
    loss: str = "cos+l1",
    per_image: bool = False,
) -> dict[str, Tensor]:
    """{"teacher/level": loss} for every teacher and level, in float32; the distillation loss is their sum.

    Args:
        paths: {teacher: [per level (B, D_t, h, w)]} of the student.
        features: the same of the teachers, of all or of some; their grids may differ from the student's.
        loss: a name of ``LOSSES``.
        per_image: whether each is (B,), the loss of every image alone, or of the batch.
    """
    function = _of_each_image(LOSSES[loss]) if per_image else LOSSES[loss]
    terms = {}
    for teacher, maps in features.items():
        for level, (ours, theirs) in enumerate(zip(paths[teacher], maps, strict=True)):
            terms[f"{teacher}/{level}"] = function(*match_grids(ours.float(), theirs.float()))
    return terms


def _of_each_image(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return torch.vmap(lambda student, teacher: function(student[None], teacher[None]))


def total(terms: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def total_with_dropping(terms: Mapping[str, Tensor], probability: float) -> Tensor:
    """The distillation loss with teachers dropped at random, image by image (UNIC, arXiv 2408.05088).

    For each image the teacher with the largest loss stays, and every other one is dropped with the given probability.
    The result is T times the mean over all that stay: as with UNIC, every pair of image and teacher counts alike.
    (Ours: the factor T, with which a probability of 0 gives ``total``.)

    Args:
        terms: {"teacher/level": (B,)} of ``distillation_terms(..., per_image=True)``.
    """
    by_teacher: dict[str, Tensor] = {}
    for name, losses in terms.items():
        teacher = name.rpartition("/")[0]
        by_teacher[teacher] = by_teacher.get(teacher, 0) + losses
    losses = torch.stack(list(by_teacher.values()))  # (T, B)
    stays = torch.rand(losses.shape, device=losses.device) >= probability
    stays = stays.scatter(0, losses.argmax(dim=0, keepdim=True), True)
    return len(losses) * (losses * stays).sum() / stays.sum()

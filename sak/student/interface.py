"""What a student is given, and what it hands out.

Shapes: B batch, N patch tokens, D stem width, D_t teacher width, T teachers, H,W image, h,w token grid.
"""

import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class StudentOutput:
    """What one forward pass yields.

    predictions: {task: (B, C_task, H, W)} raw logits or values at the input's resolution.
    paths: {teacher: [per level (B, D_t, h, w)]} aligned path features, what distillation sees.
    routing: {task: [per level (B, 1 + T)]} router weights that sum to 1, in the order of ``student.sources``;
        empty where the student adds or averages its sources without routers, or has the stem alone to read. Of a
        router that weighs every token: the mean over tokens.
    token_routing: {task: [per level (B, 1 + T, h, w)]} the weights of every token; empty unless the routers have them.
    """

    predictions: dict[str, Tensor]
    paths: dict[str, list[Tensor]]
    routing: dict[str, list[Tensor]]
    token_routing: dict[str, list[Tensor]] = field(default_factory=dict)


@dataclass
class Encoding:
    """What the heads' mixtures are made of.

    image_size: (H, W).
    features: {teacher: [per level (B, N, D)]}, of the paths.
    sources: per level the S tensors (B, N, D) that are mixed, in the order of ``student.sources``.
    """

    image_size: tuple[int, int]
    features: dict[str, list[Tensor]]
    sources: list[list[Tensor]]


PLAINLY = 0.5  # beyond [0, 1]: interpolation overshoots by less


def warned_of_range(images: Tensor) -> bool:
    """Warn, in one line, if images are plainly not in [0, 1]; says whether it did.

    What is only traced, compiled or has no data is not looked at.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(images) is not Tensor or images.is_meta:
        return False
    low, high = (float(end) for end in images.detach().aminmax())
    if low >= -PLAINLY and high <= 1 + PLAINLY:
        return False
    warnings.warn(
        f"the student was given images with values from {low:.3g} to {high:.3g}, but wants RGB in [0, 1]: divide 8-bit "
        "pixels by 255, and do not normalise (it does that itself)",
        stacklevel=5,
    )
    return True

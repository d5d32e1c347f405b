"""The mistake that no error tells of: images in 0..255, or normalised already, where the student wants [0, 1]."""

import warnings

import torch
from torch import Tensor

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

"""The head that probes a frozen model's features on one task.

Shapes: B batch, D width of a model at a level, h, w its token grid, C channels of the task, H, W image.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from sak.student.head import build_head, resize


class ProbeHead(nn.Module):
    """The same head for every model, whatever its widths and grids.

    Each level is normalised per channel, mapped linearly from the model's own width to the probe's, and resized to the
    finest of the grids; a head of the student's decodes what comes out.

    Args:
        dims: D of each level.
        width: of the head.
        channels: C.
        kind, options: as in `sak.student.head.build_head`.

    Raises:
        ValueError: there is no such head.
    """

    def __init__(self, dims: Sequence[int], width: int, channels: int, kind: str = "sak", options: dict | None = None):
        super().__init__()
        # Without it the scale of a model's features, which differs by orders of magnitude, would set the step size.
        self.norms = nn.ModuleList(nn.BatchNorm2d(dim, affine=False) for dim in dims)
        self.inputs = nn.ModuleList(nn.Conv2d(dim, width, kernel_size=1) for dim in dims)
        self.head = build_head(kind, width, len(dims), channels, options)

    def forward(self, levels: Sequence[Tensor], image_size: tuple[int, int]) -> Tensor:
        """Levels (B, D, h, w) of any float type -> (B, C, H, W)."""
        h, w = max((level.shape[-2:] for level in levels), key=math.prod)
        parts = zip(levels, self.norms, self.inputs, strict=True)
        maps = [linear(norm(level.float())) for level, norm, linear in parts]
        return self.head([level if level.shape[-2:] == (h, w) else resize(level, (h, w)) for level in maps], image_size)

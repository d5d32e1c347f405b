"""S2, scaling on scales: one frozen teacher that looks at an image at several scales (arXiv 2403.13043).

Legend: B batch, H, W image in pixels, S_h, S_w the size in pixels at which the teacher sees it (its native size),
s scale, h, w the teacher's grid at scale 1, D width of its maps.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sak.errors import UserError
from teachers.base import Teacher, resize


class MultiScale(nn.Module):
    """A teacher whose maps at several scales are concatenated on channels; no weight is added.

    At scale s the image is resized bicubically to (s·S_h, s·S_w), without aliasing where that is smaller than the
    image itself, and cut into s × s tiles without overlap. The
    teacher sees all tiles as one batch, its maps are put together again, and area interpolation brings them to the
    grid of one scale. The native size is what the teacher itself makes of the image, by its `input_size` or the
    image's own size, at a multiple of its patch: tiles keep the image's proportions, and as scales are whole numbers,
    every size divides and nothing is padded. At scale 1 the channels are exactly the plain teacher's features.

    Args:
        scales: increasing whole numbers, for example [1, 2].
        resize_to: whose grid the maps get, that of the "first" scale or of the "last".

    Raises:
        UserError: the scales cannot be tiled, or `resize_to` is neither.

    Attributes:
        name, levels, report: the teacher's.
        dims: len(scales)·D of each level.
    """

    def __init__(self, teacher: Teacher, scales: Sequence[int], resize_to: str = "first"):
        super().__init__()
        scales = list(scales)
        if not scales or scales != sorted(set(scales)) or scales[0] < 1:
            raise UserError(
                f"teacher {teacher.name}: scales {scales} cannot be tiled; give increasing whole numbers from 1, "
                "as scale s is cut into s × s tiles of the teacher's own size."
            )
        if resize_to not in ("first", "last"):
            raise UserError(f"teacher {teacher.name}: resize_to is {resize_to!r}; it can be 'first' or 'last'.")
        self.name = teacher.name
        self.levels = teacher.levels
        self.report = teacher.report
        self.dims = [len(scales) * width for width in teacher.dims]
        self.scales = scales
        self.target = scales[0 if resize_to == "first" else -1]
        self.teacher = teacher
        self.eval()

    def grid(self, height: int, width: int, level: int = 0) -> tuple[int, int]:
        """(h, w) of a level's map for images of (height, width) pixels; `level` counts the entries of `levels`."""
        h, w = self.teacher.grid(height, width, level)
        return self.target * h, self.target * w

    def changes(self, height: int, width: int) -> list[str]:
        """As `Teacher.changes`."""
        sizes = [self._size((height, width), scale) for scale in self.scales if scale > 1]
        shrinks = any(new < old for size in sizes for new, old in zip(size, (height, width), strict=True))
        return self.teacher.changes(height, width) + ["antialiased where a scale shrinks"] * shrinks

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B,3,H,W) in [0,1] -> one (B, len(scales)·D, h, w) map per level, the scales in order."""
        by_scale = [self._at(images, scale) for scale in self.scales]
        target = self.scales.index(self.target)
        return [_concatenated(maps, maps[target].shape[-2:]) for maps in zip(*by_scale, strict=True)]

    def train(self, mode: bool = True) -> "MultiScale":
        """A teacher stays in eval mode."""
        return super().train(False)

    def _at(self, images: Tensor, scale: int) -> list[Tensor]:
        """The maps (B, D, scale·h, scale·w) of each level at one scale."""
        if scale == 1:
            return self.teacher(images)
        size = self._size(images.shape[-2:], scale)
        tiles = cut(resize(self.teacher.cropped(images), size, "bicubic"), scale)
        return [stitch(level, scale) for level in self.teacher(tiles)]

    def _size(self, image: Sequence[int], scale: int) -> list[int]:
        height, width = image
        return [scale * side for side in self.teacher.tile(height, width)]


def cut(images: Tensor, parts: int) -> Tensor:
    """(B, C, parts·H, parts·W) -> (B·parts², C, H, W): the tiles of each image, row by row."""
    tiles = images.unflatten(3, (parts, -1)).unflatten(2, (parts, -1))  # (B, C, parts, H, parts, W)
    return tiles.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def stitch(tiles: Tensor, parts: int) -> Tensor:
    """(B·parts², D, h, w) -> (B, D, parts·h, parts·w): the inverse of `cut`."""
    maps = tiles.unflatten(0, (-1, parts, parts))  # (B, parts, parts, D, h, w)
    return maps.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def _concatenated(maps: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    return torch.cat([F.interpolate(scale, size=grid, mode="area") for scale in maps], dim=1)

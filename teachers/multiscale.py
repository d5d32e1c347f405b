"""A frozen teacher that looks at an image at several scales: `S2` around it, asked as a teacher is.

Legend: B batch, H, W image in pixels, h, w the teacher's grid at scale 1, D width of its maps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sak.errors import UserError
from teachers.base import Teacher
from teachers.s2 import S2


class MultiScale(nn.Module):
    """A teacher whose maps at several scales are concatenated on channels (`teachers.s2`); no weight is added.

    The native size is what the teacher itself makes of the image, by its `input_size` or the image's own size, at a
    multiple of its patch: tiles keep the image's proportions, and as scales are whole numbers, every size divides and
    nothing is padded. Larger scales see the image itself, without aliasing where they are smaller than it. At scale 1
    the channels are exactly the plain teacher's features.

    Args:
        scales: increasing whole numbers, for example [1, 2].
        resize_to: whose grid the maps get, that of the "first" scale or of the "last".
        split, merge: as of `S2`; a whole image is only seen by a teacher that takes it at its own size.

    Raises:
        UserError: the scales cannot be tiled, or `resize_to` or `merge` is neither; when called: the teacher would
            bring a larger image back to its own size.

    Attributes:
        name, levels, report: the teacher's.
        dims: len(scales)·D of each level; D with the merge "sum".
    """

    def __init__(
        self,
        teacher: Teacher,
        scales: Sequence[int],
        resize_to: str = "first",
        split: bool = True,
        merge: str = "concat",
    ):
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
        self.dims = [len(scales) * width if merge == "concat" else width for width in teacher.dims]
        self.scales = scales
        self.teacher = teacher
        # As a function, so that the teacher's weights have one name here, by which caches know them.
        self.s2 = S2(
            teacher.__call__, scales, size=teacher.tile, split=split, merge=merge, resize_to=resize_to, antialias=True
        )
        self.eval()

    def grid(self, height: int, width: int, level: int = 0) -> tuple[int, int]:
        """(h, w) of a level's map for images of (height, width) pixels; `level` counts the entries of `levels`."""
        h, w = self.teacher.grid(height, width, level)
        scale = self.scales[self.s2.target]
        return scale * h, scale * w

    def changes(self, height: int, width: int) -> list[str]:
        """As `Teacher.changes`."""
        sizes = [look.size for look, scale in zip(self.s2.looks(height, width), self.scales, strict=True) if scale > 1]
        shrinks = any(new < old for size in sizes for new, old in zip(size, (height, width), strict=True))
        return self.teacher.changes(height, width) + ["antialiased where a scale shrinks"] * shrinks

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B,3,H,W) in [0,1] -> one (B, len(scales)·D, h, w) map per level, the scales in order."""
        images = self.teacher.cropped(images)
        if not self.s2.split:
            self._check_whole(*images.shape[-2:])
        return self.s2(images)

    def _check_whole(self, height: int, width: int) -> None:
        for look in self.s2.looks(height, width):
            if self.teacher.tile(*look.size) != look.size:
                raise UserError(
                    f"teacher {self.name} brings every image to its own size, so that it cannot see a larger one as a "
                    "whole; take one whose input_size is native, or leave split out."
                )

    def train(self, mode: bool = True) -> "MultiScale":
        """A teacher stays in eval mode."""
        return super().train(False)

"""Frozen backbones, each as one thing: images in, a map of every chosen block out, and no gradient.

Shapes: B batch, D width, H,W image, h,w token grid, L blocks.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from sak.errors import UserError
from sak.student import Student
from teachers import MultiScale, Teacher

OWN_GRID = (16, 16)  # of a backbone that has none of its own


class BackboneStem(nn.Module):
    """What stands in the place of a student's stem: images in, maps out.

    Attributes:
        backbone: a teacher, ...: see the subclasses.
        taps: the backbone's blocks that are read.
        levels: those of them whose maps come out.
        width: D of all maps.
        patch_size: pixels per token and side.
        learned: the names of the backbone's weights that learn.
    """

    backbone: nn.Module
    taps: list[int]
    levels: list[int]
    width: int
    patch_size: int
    learned: Sequence[str] = ()

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of the maps for images of (height, width) pixels."""
        raise NotImplementedError

    def blocks_after(self, block: int) -> Sequence[nn.Module]:
        """As of ``Stem``: what need not learn, which is settled when it is built."""
        return ()


class Frozen(BackboneStem):
    """A frozen backbone whose maps are read at some of its blocks.

    A teacher, also one at several scales, gives what it gives as a teacher: images in [0, 1], any size. Of a trained
    student the blocks of its stem are read. A model of timm takes what it takes by itself, normalised images; it must
    have `forward_intermediates`, one width and one grid.

    Args:
        backbone: is frozen here, for good, and put into eval mode.
        taps: blocks, counted from 0, increasing; None: a teacher's levels or a student's, else the last block of each
            quarter of the depth.

    Attributes:
        own_grid: (h, w) that the backbone was built for, where it says so.

    Raises:
        UserError: the backbone has no intermediate features or not those, or they have several widths.
    """

    def __init__(self, backbone: nn.Module, taps: Sequence[int] | None = None):
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.own_grid = OWN_GRID
        if isinstance(backbone, Teacher | MultiScale):
            known, default = backbone.levels, backbone.levels
            widths = dict(zip(backbone.levels, backbone.dims, strict=True))
            teacher = backbone.teacher if isinstance(backbone, MultiScale) else backbone
            self.patch_size, what = teacher.patch_size, f"the levels {backbone.levels}"
            if teacher.levels and len(set(teacher.strides)) > 1:
                raise UserError(f"teacher {backbone.name}: its levels have several grids, but one is needed here.")
        elif isinstance(backbone, Student):
            known, default = range(backbone.stem.depth), list(backbone.levels)
            widths = dict.fromkeys(known, backbone.stem.width)
            self.patch_size, what = backbone.stem.patch_size, f"{len(known)} blocks, 0 to {len(known) - 1}"
            self.own_grid = backbone.stem.grid(*backbone.stem.image_size)
        elif callable(getattr(backbone, "forward_intermediates", None)):
            stages = cast(Sequence[dict], backbone.feature_info)
            known = range(len(stages))
            default = sorted({max(0, len(known) * part // 4 - 1) for part in (1, 2, 3, 4)})
            widths = {index: stage["num_chs"] for index, stage in enumerate(stages)}
            self.patch_size, what = stages[-1]["reduction"], f"{len(known)} blocks, 0 to {len(known) - 1}"
            embedding: Any = getattr(backbone, "patch_embed", None)
            self.own_grid = tuple(getattr(embedding, "grid_size", None) or OWN_GRID)
        else:
            raise UserError(
                f"a backbone of the class {type(backbone).__name__} does not give intermediate features: take a "
                "teacher, a student, or a model of timm that has forward_intermediates"
            )
        self.taps = list(default if taps is None else taps)
        if not self.taps or self.taps != sorted(set(self.taps)) or not set(self.taps) <= set(known):
            raise UserError(f"taps are {self.taps}, but must be increasing, and the backbone has {what}")
        if len({widths[tap] for tap in self.taps}) > 1:
            raise UserError(
                f"the backbone's maps have the widths {[widths[tap] for tap in self.taps]} at the taps {self.taps}, "
                "but one is needed: take a plain transformer, or taps of one stage"
            )
        self.levels, self.width = self.taps, widths[self.taps[0]]
        backbone.eval()

    def grid(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.backbone, Teacher | MultiScale):
            return self.backbone.grid(height, width)
        if isinstance(self.backbone, Student):
            return self.backbone.stem.grid(height, width)
        return height // self.patch_size, width // self.patch_size

    @torch.no_grad()  # not inference_mode: what comes out is kept for a backward pass that ends here
    def forward(self, images: Tensor, maps: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Images (B,3,H,W) -> a float32 map (B,D,h,w) of each tap: `maps`, where they are known."""
        if maps is not None:
            return list(maps)
        if isinstance(self.backbone, Teacher | MultiScale):
            maps = self.backbone(images)
            return [maps[self.backbone.levels.index(tap)] for tap in self.taps]
        if isinstance(self.backbone, Student):
            tokens = self.backbone.stem((images - self.backbone.mean) / self.backbone.std)
            grid = self.grid(*images.shape[-2:])
            return [tokens[tap + 1][:, 1:].transpose(1, 2).unflatten(2, grid).float() for tap in self.taps]
        model: Any = self.backbone  # of timm, whose return type depends on the arguments
        maps = model.forward_intermediates(
            images, indices=self.taps, norm=False, stop_early=True, intermediates_only=True
        )
        return [level.float() for level in maps]

    def train(self, mode: bool = True) -> "Frozen":
        """It stays in eval mode."""
        return super().train(False)

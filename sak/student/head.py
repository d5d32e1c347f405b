"""Heads that decode the mixed levels into one task's map.

Shapes: B batch, D width, C channels of the task, H,W image, h,w token grid.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sak.student.upsampled_conv import upsampled_conv3x3


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


class Head(nn.Module):
    """The paper's decode head: project every level, upsample to a quarter of the image, fuse, classify.

    Each level Linear D -> D/4, concatenated, bilinear to (H/4, W/4); 3x3 conv to D + BN + GELU; 1x1 conv to C.
    """

    def __init__(self, width: int, levels: int, channels: int):
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(width, width // 4) for _ in range(levels))
        self.fuse = nn.Sequential(
            nn.Conv2d(levels * (width // 4), width, kernel_size=3, padding=1), nn.BatchNorm2d(width), nn.GELU()
        )
        self.classify = nn.Conv2d(width, channels, kernel_size=1)

    def forward(self, levels: Sequence[Tensor], image_size: tuple[int, int]) -> Tensor:
        """Levels (B, D, h, w) -> (B, C, H, W)."""
        projected = [
            project(level.permute(0, 2, 3, 1)) for project, level in zip(self.projections, levels, strict=True)
        ]
        conv: Any  # a Conv2d, which a Sequential does not tell
        conv, norm, activate = self.fuse
        quarter = (image_size[0] // 4, image_size[1] // 4)
        fused = upsampled_conv3x3(torch.cat(projected, dim=-1), conv.weight, conv.bias, quarter)
        activated = activate(norm(fused.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        # A 1x1 convolution of what lies channels last is a matrix product, for which torch has no slow form.
        classified = F.linear(activated, self.classify.weight.flatten(1), self.classify.bias)
        return resize(classified.permute(0, 3, 1, 2), image_size)


class MMSegHead(nn.Module):
    """Any decode head of the mmsegmentation registry, e.g. ``SegformerHead``, ``UPerHead`` or ``FCNHead``.

    ``options`` go to its constructor and override our defaults (all levels as input, width D, batch norm).

    Raises:
        ValueError: mmsegmentation has no such head, or it refuses the options.
    """

    def __init__(self, name: str, width: int, levels: int, channels: int, options: dict | None = None):
        super().__init__()
        import mmseg.models  # noqa: F401  (fills the registry)
        from mmseg.registry import MODELS

        if MODELS.get(name) is None:
            raise ValueError(f"mmsegmentation has no head {name!r}; its heads are listed in mmseg.models.decode_heads")
        arguments = {
            "type": name,
            "in_channels": [width] * levels,
            "in_index": list(range(levels)),
            "channels": width,
            "num_classes": channels,
            "norm_cfg": {"type": "BN"},
            "align_corners": False,
            "input_transform": "resize_concat",
            **(options or {}),
        }
        try:
            try:
                self.head = MODELS.build(dict(arguments))
            except TypeError:  # heads that read several levels choose their input transform themselves
                arguments.pop("input_transform")
                self.head = MODELS.build(arguments)
        except (TypeError, AssertionError, KeyError) as error:
            raise ValueError(f"mmsegmentation's {name} cannot be built from {arguments}: {error}") from error

    def forward(self, levels: Sequence[Tensor], image_size: tuple[int, int]) -> Tensor:
        """Levels (B, D, h, w) -> (B, C, H, W)."""
        return resize(self.head(list(levels)), image_size)


def build_head(kind: str, width: int, levels: int, channels: int, options: dict | None = None) -> nn.Module:
    """``sak`` is the paper's head; ``mmseg.NAME`` is NAME from mmsegmentation's registry."""
    if kind == "sak":
        if options:
            raise ValueError(f"the paper's head takes no options, but was given {sorted(options)}")
        return Head(width, levels, channels)
    library, _, name = kind.partition(".")
    if library != "mmseg" or not name:
        raise ValueError(f"unknown head {kind!r}; known: 'sak' and 'mmseg.NAME', e.g. 'mmseg.SegformerHead'")
    return MMSegHead(name, width, levels, channels, options)

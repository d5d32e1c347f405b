"""Adapters, and the paths that lead from the stem to one teacher.

Shapes: B batch, N patch tokens, D stem width, D_t teacher width, L blocks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.init import trunc_normal_, zeros_
from torch.nn.parameter import Parameter


class Adapter(nn.Module):
    """A(z) = z + s · W_up GELU(W_down z), with s a learnable scalar (SAK, arXiv 2410.14633)."""

    def __init__(self, width: int, ratio: int = 4):
        super().__init__()
        self.down = nn.Linear(width, width // ratio)
        self.up = nn.Linear(width // ratio, width)
        self.scale = Parameter(torch.ones(1))
        for linear in (self.down, self.up):
            trunc_normal_(linear.weight, std=0.02)
            zeros_(linear.bias)

    def forward(self, z: Tensor) -> Tensor:
        return z + self.scale * self.up(F.gelu(self.down(z)))


class TeacherPath(nn.Module):
    """All weights of the student that belong to one teacher: what leads from the stem's tokens to its features.

    ``aligners``: per level a Linear D -> D_t, or the identity, into the teacher's width; for the distillation alone.
    """

    aligners: nn.ModuleList

    def forward(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """Stem tokens [x_0, ..., x_L], each (B, 1+N, D) -> features f at each level, (B, N, D)."""
        raise NotImplementedError

    def align(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Features (B, N, D) per level -> (B, N, D_t) per level."""
        return [aligner(f) for aligner, f in zip(self.aligners, features, strict=True)]


class StemPath(TeacherPath):
    """No path at all, as in many-to-one distillation: the teacher's aligners read the stem's own patch tokens.

    Args:
        width, levels, dims: as of ``AdapterPath``.
        aligner: False for a student whose aligners were dropped. Otherwise every level has one, whatever the widths:
            the teachers share the stem's tokens, which cannot be the features of all of them at once.
    """

    def __init__(self, width: int, levels: Sequence[int], dims: Sequence[int], aligner: bool | None = None):
        super().__init__()
        self.levels = tuple(levels)
        self.aligners = nn.ModuleList(nn.Identity() if aligner is False else nn.Linear(width, dim) for dim in dims)

    def forward(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        return [tokens[block + 1][:, 1:] for block in self.levels]


class AdapterPath(TeacherPath):
    """The teacher-specific adapter path (TSAP).

    a_0 = A_0(x_0), a_i = A_i(a_{i-1} + x_i); at a level f = LayerNorm(a_i without the class token). An aligner
    (Linear D -> D_t) maps f to the teacher's width, for the distillation loss alone.

    Args:
        width: D of the stem.
        depth: L, the number of the stem's blocks.
        levels: the blocks (0-based) after which features are taken.
        dims: the teacher's width D_t at each level.
        ratio: D divided by the adapters' inner width.
        aligner: None puts an aligner where widths differ, True at every level, False nowhere.
        norm: False for f = a_i without the class token. Behind a LayerNorm all tokens have nearly one length; a
            teacher's have not, and are distilled with their lengths (docs/RESULTS.md measures what that is worth).
    """

    def __init__(
        self,
        width: int,
        depth: int,
        levels: Sequence[int],
        dims: Sequence[int],
        ratio: int = 4,
        aligner: bool | None = None,
        norm: bool = True,
    ):
        super().__init__()
        self.levels = tuple(levels)
        self.adapters = nn.ModuleList(Adapter(width, ratio) for _ in range(depth + 1))
        # torch's epsilon, as published
        self.norms = nn.ModuleList(nn.LayerNorm(width) if norm else nn.Identity() for _ in levels)
        self.aligners = nn.ModuleList(
            nn.Linear(width, dim) if (dim != width if aligner is None else aligner) else nn.Identity() for dim in dims
        )

    def forward(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        features = []
        a = self.adapters[0](tokens[0])
        for block, (adapter, x) in enumerate(zip(self.adapters[1:], tokens[1:], strict=True)):
            a = adapter(a + x)
            if block in self.levels:
                features.append(self.norms[self.levels.index(block)](a[:, 1:]))
        return features

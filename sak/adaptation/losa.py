"""LoSA, low-rank side adaptation: a small network beside a frozen backbone (arXiv 2402.02887).

Written after the paper's description, as no code of its authors is public.

Shapes: B batch, T frames, D width, H,W image, h,w token grid, r rank, n length of an axis.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import Parameter

from sak.adaptation.frozen import Frozen
from sak.errors import UserError


class AxisMixing(nn.Module):
    """W_up GELU(W_down ·) along one axis of the tokens, the same for every channel and every other place.

    The weights are kept for an axis of length n. Along another length they are resized: both as functions of the
    place, linearly, and W_down, which sums over places, by the factor n / length too, so that the sum stays what it
    was on maps that change slowly.
    """

    def __init__(self, length: int, rank: int):
        super().__init__()
        rank = min(rank, length)  # more would not be low
        self.down = Parameter(torch.empty(rank, length).uniform_(-1, 1) / math.sqrt(length))
        self.up = Parameter(torch.zeros(rank, length))

    def forward(self, tokens: Tensor, axis: int) -> Tensor:
        """Tokens (..., D) -> what is added to them along the axis."""
        length, kept = tokens.shape[axis], self.down.shape[1]
        down, up = self.down, self.up
        if length != kept:
            down, up = (F.interpolate(w[None], size=length, mode="linear")[0] for w in (down, up))
            down = down * (kept / length)
        lines = tokens.flatten(0, axis - 1).flatten(2)  # (·, length, ·)
        return (up.T @ F.gelu(down @ lines)).view(tokens.shape)


class Mixer(nn.Module):
    """g(z) = h + T(z + h), with h = C(LN z): low-rank maps over channels and tokens in turn (LoSA, arXiv 2402.02887).

    C is W_up GELU(W_down ·) over the channels. T goes along the rows, the columns and, of clips, the frames, one after
    the other, each on what the ones before it have made: so one mixer reaches from every token to every other, with
    r · (h + w + T) weights instead of r · hwT, and on other grids (`AxisMixing`). All W_up begin at 0, and so does g.

    Args:
        axes: lengths that the token mixing is kept for: (h, w), or (T, h, w) of clips.
    """

    def __init__(self, width: int, rank: int, axes: Sequence[int]):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.up.weight)
        self.tokens = nn.ModuleList(AxisMixing(length, rank) for length in axes)

    def forward(self, z: Tensor) -> Tensor:
        """Tokens (B, h, w, D), or (B, T, h, w, D) -> the same shape."""
        g = self.up(F.gelu(self.down(self.norm(z))))
        for axis, mixing in reversed(list(enumerate(self.tokens, start=1))):  # columns, rows, frames
            g = g + mixing(z + g, axis)
        return g


class SideNetwork(nn.Module):
    """s_0 = 0, s_i = s_{i-1} + g_i(b_i + s_{i-1}): what is added to a backbone's maps b_1, b_2, ... (LoSA).

    Args:
        width: D.
        count: of the maps.
        axes: as of `Mixer`.
    """

    def __init__(self, width: int, count: int, rank: int, axes: Sequence[int]):
        super().__init__()
        self.mixers = nn.ModuleList(Mixer(width, rank, axes) for _ in range(count))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps b_i (..., D, h, w) -> b_i + s_i, of the same shapes; the maps themselves where all W_up are 0."""
        refined, s = [], None
        for b, mixer in zip(maps, self.mixers, strict=True):
            b = b.movedim(-3, -1).contiguous()
            z = b if s is None else b + s
            s = mixer(z) if s is None else s + mixer(z)
            refined.append((b + s).movedim(-1, -3))
        return refined


class LoSA(Frozen):
    """A frozen backbone and a side network that refines its maps; called like the backbone.

    Nothing is ever differentiated through the backbone: it is run without a graph, and its features may as well come
    from a file (`maps`). A step so costs the backbone's forward pass, or nothing of it, and a small network.

    Args:
        backbone: a timm vision transformer, a teacher (also one at several scales) or a student; see `Frozen`. It is
            frozen here.
        rank: of all its low-rank maps.
        taps: blocks whose maps the side network reads, a mixer for each; None: as of `Frozen`. `range(depth)` are all,
            as in the paper.
        levels: those of the taps whose refined maps come out; None: all.
        grid: (h, w) that the weights of the token mixing are kept for; None: the backbone's own. Images of any other
            size work too.
        frames: T that they are kept for: the backbone then sees clips; None: images.

    Raises:
        UserError: the rank is not one of 1 to the backbone's width, it has no such taps or no intermediate features at
            all, or a level is no tap.
    """

    def __init__(
        self,
        backbone: nn.Module,
        rank: int = 8,
        taps: Sequence[int] | None = None,
        levels: Sequence[int] | None = None,
        grid: Sequence[int] | None = None,
        frames: int | None = None,
    ):
        super().__init__(backbone, taps)
        self.levels = self.taps if levels is None else list(levels)
        if strangers := [level for level in self.levels if level not in self.taps]:
            raise UserError(f"the level {strangers[0]} is none of the taps {self.taps}")
        if not 1 <= rank <= self.width:
            raise UserError(f"rank is {rank}, but must be from 1 to {self.width}, the width of the backbone's maps")
        if frames is not None and frames < 1:
            raise UserError(f"frames is {frames}, but must be positive, or None for images")
        self.frames = frames
        axes = (*((frames,) if frames else ()), *(grid or self.own_grid))
        self.side = SideNetwork(self.width, len(self.taps), rank, axes)
        self.train()

    def forward(self, images: Tensor, maps: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Images (B,3,H,W) -> a map (B,D,h,w) of each level; or clips (B,T,3,H,W) -> (B,T,D,h,w).

        Args:
            maps: what the backbone makes of the images, one of each tap, where it is known.
        """
        if maps is None:
            if self.frames is None:
                maps = super().forward(images)
            else:
                of_frames = super().forward(images.flatten(0, 1))
                maps = [level.unflatten(0, images.shape[:2]) for level in of_frames]
        refined = self.side(maps)
        return [refined[self.taps.index(level)] for level in self.levels]

    def train(self, mode: bool = True) -> "LoSA":
        """The backbone stays in eval mode."""
        super().train(False)
        self.side.train(mode)
        self.training = mode
        return self

"""A 3x3 convolution of a bilinearly upsampled map, without ever convolving the large map.

Convolution and upsampling are linear: conv(up(g)) = Σ over the nine taps (a, b) of shift_ab(up(W_ab g)). The products
W_ab g run on the small grid, where there are, for the heads' factor four, sixteen times fewer pixels; upsampling and
shift are two small matrices, one along each axis, that sum over the taps as they go.

Shapes: B batch, D_i, D_o channels in and out, h,w small grid, H,W large grid.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def upsampled_conv3x3(grid: Tensor, weight: Tensor, bias: Tensor, size: tuple[int, int]) -> Tensor:
    """``conv2d(interpolate(g, size, mode="bilinear"), weight, bias, padding=1)``, channels last.

    Args:
        grid: g, (B, h, w, D_i).
        weight: (D_o, D_i, 3, 3).
        bias: (D_o,).
        size: (H, W).

    Returns:
        (B, H, W, D_o).
    """
    batch, h, w, _ = grid.shape
    height, width = size
    rows = _upsample_and_shift(h, height, grid).permute(1, 0, 2).reshape(height, 3 * h)
    columns = _upsample_and_shift(w, width, grid).permute(1, 2, 0).reshape(width, w * 3)
    # The middle tap always reads inside the map, where upsampling's weights sum to 1: the bias can be added to its
    # products on the small grid instead of to the large map.
    middle = F.pad(bias, (len(bias), len(bias)))
    along_x = []
    for a in range(3):
        # (B, h, w, 3·D_o) seen as (B·h, w·3, D_o): the taps along x lie beside the columns, and one matrix sums both.
        taps = weight[:, :, a].permute(2, 0, 1).flatten(0, 1)
        products = F.linear(grid, taps, middle if a == 1 else None).reshape(batch * h, w * 3, -1)
        along_x.append(torch.matmul(columns, products).reshape(batch, h, -1))
    # One product along y too: in half precision, it sums the taps without rounding in between.
    return torch.matmul(rows, torch.cat(along_x, dim=1)).reshape(batch, height, width, -1)


def _upsample_and_shift(small: int, large: int, like: Tensor) -> Tensor:
    """(3, large, small): along one axis, upsample and then read the pixel before, the pixel, the one after.

    Rows that would be read beyond the border are 0, as the convolution's padding is. Type and device are those of
    ``like``. It is cheap, and a cache of it would hand out what a tracer has put there.
    """
    how: dict[str, Any] = {"device": like.device, "dtype": torch.promote_types(like.dtype, torch.float32)}
    centres = (torch.arange(large, **how) + 0.5) * (small / large) - 0.5  # of the large pixels, on the small grid
    distances = centres.clamp(0, small - 1)[:, None] - torch.arange(small, **how)
    padded = F.pad((1 - distances.abs()).clamp(min=0), (0, 0, 1, 1))
    return torch.stack([padded[a : a + large] for a in range(3)]).to(like.dtype)

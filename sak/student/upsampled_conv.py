"""A 3x3 convolution of a bilinearly upsampled map, without ever convolving the large map.

Convolution and upsampling are linear: conv(up(g)) = Σ over the nine taps (a, b) of shift_ab(up(W_ab g)). The products
W_ab g run on the small grid, where there are, for the heads' factor four, sixteen times fewer pixels; upsampling and
shift are two small matrices, one along each axis, that sum over the taps as they go.

Shapes: B batch, D_i, D_o channels in and out, h,w small grid, H,W large grid.
"""

import functools

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
    rows = _upsample_and_shift(h, height, grid.device, grid.dtype)
    columns = _upsample_and_shift(w, width, grid.device, grid.dtype).permute(1, 2, 0).reshape(width, w * 3)
    out = bias.to(grid.dtype).repeat(width).expand(batch, height, -1)
    for a in range(3):
        # (B, h, w, 3·D_o) seen as (B·h, w·3, D_o): the taps along x lie beside the columns, and one matrix sums both.
        products = F.linear(grid, weight[:, :, a].permute(2, 0, 1).flatten(0, 1)).reshape(batch * h, w * 3, -1)
        along_x = torch.matmul(columns, products).reshape(batch, h, -1)
        out = out + torch.matmul(rows[a], along_x)
    return out.reshape(batch, height, width, -1)


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is cached may meet a gradient later
def _upsample_and_shift(small: int, large: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(3, large, small): along one axis, upsample and then read the neighbour before, the pixel, the one after.

    Rows that would be read beyond the border are 0, as the convolution's padding is.
    """
    identity = torch.eye(small, device=device, dtype=torch.float64)[None]
    upsample = F.interpolate(identity, size=large, mode="linear", align_corners=False)[0].T
    padded = F.pad(upsample, (0, 0, 1, 1))
    return torch.stack([padded[a : a + large] for a in range(3)]).to(dtype)

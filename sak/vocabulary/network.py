"""The vocabulary network of Vary (arXiv 2312.06109): an encoder of segment_anything that ends in a few wide tokens.

Legend: B batch, H,W image, p patch, h,w grid of the encoder, D its width, C channels of the last convolution,
N = h·w / 4^n tokens behind n convolutions of stride 2: 256 of 1024 channels at 1024 x 1024.
"""

import functools
from collections.abc import Sequence

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from sak.errors import UserError
from teachers.base import resize_position_embedding, unknown
from teachers.sam import ARCHITECTURES, run_block
from teachers.vocabulary import PIXELS

# How an encoder begins that must learn to see from nothing: its library expects weights to be loaded. What a patch
# brings at first is where it lies and what is on it; plain paper, which is far from the mean of photographs, brings
# nothing. With positions of 0.02, or with paper's share, a miniature learnt to look later (docs/vocabulary.md).
POSITIONS_STD, PAPER = 0.5, 0.8
FIRST = 2  # the first convolution is called net_2, as in the published code: all weights have its names


class VocabularyNetwork(ImageEncoderViT):
    """RGB images (B,3,H,W) in [0,1] -> tokens (B,N,C).

    Args:
        model: of segment_anything: vit_b, vit_l or vit_h.
        image_size: (H, W) of training; others that p·2^n divides work too, the positions are resized.
        options: overrides of its ``ImageEncoderViT``, as ``embed_dim`` and ``depth``.
        channels: of each of the n convolutions of 3 x 3 and stride 2, without bias, norm or activation.
        statistics: what pixels are normalised with, of ``PIXELS``.

    Attributes:
        settings: these arguments.
        width: D.
        channels: C.
        stride: pixels per token and side, p·2^n.

    Raises:
        UserError: there is no such model, it has no such options, or it cannot take images of this size.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: str,
        image_size: Sequence[int],
        options: dict | None = None,
        channels: Sequence[int] = (512, 1024),
        statistics: str = "imagenet",
    ):
        options = dict(options or {})
        if model not in ARCHITECTURES:
            raise UserError(f"vocabulary.network.model: {unknown('SAM model', model, ARCHITECTURES)}")
        if "img_size" in options:
            raise UserError("vocabulary.network.options has img_size, which vocabulary.data.image_size says already")
        norm = functools.partial(nn.LayerNorm, eps=1e-6)
        try:
            super().__init__(norm_layer=norm, **{**ARCHITECTURES[model], **options, "img_size": max(image_size)})
        except Exception as error:  # the library raises whatever an odd value happens to meet
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"vocabulary.network.options {options} do not suit {model}: {reason}") from error
        self.settings = {
            "model": model,
            "image_size": list(image_size),
            "options": options,
            "channels": list(channels),
            "statistics": statistics,
        }
        self.width, self.channels = self.patch_embed.proj.out_channels, channels[-1]
        self.patch = self.patch_embed.proj.kernel_size[0]
        self.stride = self.patch * 2 ** len(channels)
        before = self.neck[0].out_channels
        for number, after in enumerate(channels, start=FIRST):
            self.add_module(f"net_{number}", nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False))
            before = after
        h, w = self._encoder_grid(*image_size)
        # The library builds for squares; what is learnt of positions is of the grid that training has.
        self.pos_embed = nn.Parameter(torch.zeros(1, h, w, self.width))
        nn.init.trunc_normal_(self.pos_embed, std=POSITIONS_STD)
        for block in self.blocks:
            if block.window_size == 0 and block.attn.use_rel_pos:
                head = block.attn.rel_pos_h.shape[1]
                block.attn.rel_pos_h = nn.Parameter(torch.zeros(2 * h - 1, head))
                block.attn.rel_pos_w = nn.Parameter(torch.zeros(2 * w - 1, head))
        mean, std = PIXELS[statistics]
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        with torch.no_grad():
            plain = (PAPER - self.mean) / self.std
            self.patch_embed.proj.bias -= (self.patch_embed.proj.weight * plain).sum(dim=(1, 2, 3))

    @property
    def convolutions(self) -> list[nn.Module]:
        return [self.get_submodule(f"net_{FIRST + index}") for index in range(len(self.settings["channels"]))]

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of the tokens of images of (height, width).

        Raises:
            UserError: the network cannot take them.
        """
        self._encoder_grid(height, width)
        return height // self.stride, width // self.stride

    def maps(self, images: Tensor) -> Tensor:
        """RGB images (B,3,H,W) in [0,1] -> the tokens on their grid, (B,C,h/2^n,w/2^n)."""
        grid = self._encoder_grid(*images.shape[-2:])
        tokens = self.patch_embed((images - self.mean) / self.std)  # (B,h,w,D)
        position = self.pos_embed.permute(0, 3, 1, 2)
        tokens = tokens + resize_position_embedding(position, grid).permute(0, 2, 3, 1)
        for block in self.blocks:
            tokens = run_block(block, tokens)
        maps = self.neck(tokens.permute(0, 3, 1, 2))
        for convolution in self.convolutions:
            maps = convolution(maps)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images).flatten(2).transpose(1, 2)

    def _encoder_grid(self, height: int, width: int) -> tuple[int, int]:
        if min(height, width) < 1 or height % self.stride or width % self.stride:
            raise UserError(
                f"the vocabulary network cannot take images of {height} x {width} pixels: both sides must be multiples "
                f"of {self.stride}, which its patches of {self.patch} and its convolutions make one token of; see "
                "vocabulary.data.image_size"
            )
        return height // self.patch, width // self.patch

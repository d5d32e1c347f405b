"""SAM's image encoder, from segment_anything.

Legend: B batch, H', W' resized image in pixels, S side of the padded square, h, w token grid, D width; of one
attention: n heads of d channels, G windows of a x b tokens (the whole grid of each image, or a window of it).
"""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Attention, Block, get_rel_pos, window_partition, window_unpartition
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from sak.errors import UserError
from teachers import weights
from teachers.base import (
    RANDOM,
    Teacher,
    TeacherSpec,
    building,
    resize_position_embedding,
    unknown,
)

_COMMON = {"img_size": 1024, "patch_size": 16, "window_size": 14, "out_chans": 256, "use_rel_pos": True}
ARCHITECTURES = {  # segment_anything.sam_model_registry, which builds whole models of fixed sizes only
    "vit_b": {**_COMMON, "embed_dim": 768, "depth": 12, "num_heads": 12, "global_attn_indexes": (2, 5, 8, 11)},
    "vit_l": {**_COMMON, "embed_dim": 1024, "depth": 24, "num_heads": 16, "global_attn_indexes": (5, 11, 17, 23)},
    "vit_h": {**_COMMON, "embed_dim": 1280, "depth": 32, "num_heads": 16, "global_attn_indexes": (7, 15, 23, 31)},
}
URL = "https://dl.fbaipublicfiles.com/segment_anything/"
PUBLISHED = {  # file: how its SHA-256 begins, which is part of its name
    "vit_b": ("sam_vit_b_01ec64.pth", "01ec64"),
    "vit_l": ("sam_vit_l_0b3195.pth", "0b3195"),
    "vit_h": ("sam_vit_h_4b8939.pth", "4b8939"),
}


def image_encoder(model: str, **options) -> ImageEncoderViT:
    """segment_anything's encoder, untrained: `model` is vit_b, vit_l or vit_h, `options` override its arguments."""
    norm = functools.partial(nn.LayerNorm, eps=1e-6)
    return ImageEncoderViT(norm_layer=norm, **{**ARCHITECTURES[model], **options})


class Encoder(Teacher):
    """An encoder of segment_anything as a teacher, whatever it was trained for.

    Args:
        backbone: without its neck: features are taken before it.
        mean, std, report: as of `Teacher`.
    """

    LIBRARIES = ("segment-anything",)

    def __init__(
        self,
        name: str,
        spec: TeacherSpec,
        backbone: ImageEncoderViT,
        mean: Sequence[float],
        std: Sequence[float],
        report: weights.LoadReport | None,
    ):
        projection = backbone.patch_embed.proj
        depth = len(backbone.blocks)
        super().__init__(
            name,
            spec,
            backbone,
            widths=[projection.out_channels] * depth,
            strides=[projection.kernel_size[0]] * depth,
            mean=mean,
            std=std,
            report=report,
        )
        if spec.input_size is None:
            self.input_size = backbone.img_size
        if self.input_size is not None and self.input_size % self.patch_size:
            raise UserError(f"teacher {name}: input_size {self.input_size} is not a multiple of {self.patch_size}.")
        self.refuse_crop(self.input_size is not None)

    def changes(self, height: int, width: int) -> list[str]:
        if self.input_size is None:
            return []
        shown = [int(side * self.input_size / max(height, width) + 0.5) for side in (height, width)]
        return ["shorter side at whole patches"] if any(side % self.patch_size for side in shown) else []

    def features(self, inputs: Tensor) -> list[Tensor]:
        height, width = inputs.shape[-2:]
        h, w = self.grid(height, width)
        if self.input_size is not None:
            inputs = F.pad(inputs, (0, self.input_size - width, 0, self.input_size - height))  # (B,3,S,S)
        tokens = self.backbone.patch_embed(inputs)  # (B,S/p,S/p,D)
        position = self.backbone.pos_embed.float().permute(0, 3, 1, 2)
        position = resize_position_embedding(position, tokens.shape[1:3])
        tokens = tokens + position.permute(0, 2, 3, 1).to(tokens.dtype)
        levels = []
        for index, block in enumerate(self.backbone.blocks[: self.levels[-1] + 1]):
            tokens = run_block(block, tokens)
            if index in self.levels:
                levels.append(tokens[:, :h, :w].permute(0, 3, 1, 2))
        return levels


class SAM(Encoder):
    """The image encoder of a promptable segmenter (Kirillov et al., arXiv 2304.02643) from segment_anything.

    `model` is `vit_b`, `vit_l` or `vit_h`; `options` are arguments of its `ImageEncoderViT`; `weights` is a
    checkpoint of the whole model, such as `sam_vit_b_01ec64.pth`, or of its `image_encoder.` alone; a file under a
    published name must have the published SHA-256. As in the library, the longer side is resized to S
    (`input_size`, else the encoder's 1024), the normalised image is padded with zeros on the right and below to a
    square; the features are cropped to the part that shows the image. The shorter side goes to whole patches, where
    the library rounds to pixels: so that what is cropped shows the image, all of it and nothing else. With
    `input_size: native` the encoder sees the image at its own size without padding. At any size but its own, all of
    its positions are resized.
    """

    def __init__(self, name: str, spec: TeacherSpec):
        if spec.model not in ARCHITECTURES:
            raise UserError(f"teacher {name}: {unknown('SAM model', spec.model, ARCHITECTURES)}")
        with building(name, spec):
            backbone = image_encoder(spec.model, **spec.options)
        del backbone.neck
        report = None
        if spec.weights != RANDOM:
            file, sha256 = PUBLISHED[spec.model]
            file = weights.local(spec.weights, name) if spec.weights else weights.from_url(name, URL + file, sha256)
            for published, begins in PUBLISHED.values():
                if file.name == published:
                    weights.check_sha256(file, begins, name)
            rest = ("image_encoder.neck.", "prompt_encoder.", "mask_decoder.")
            report = weights.load(backbone, weights.read(file, name), file, name, "image_encoder.", rest)
        # The statistics are SAM's own, written there as 0..255.
        super().__init__(name, spec, backbone, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, report)


def run_block(block: Block, tokens: Tensor) -> Tensor:
    """What the library's block computes, (B,h,w,D) -> (B,h,w,D), without its maps of attention weights."""
    tokens = tokens + attend(block.attn, block.norm1(tokens), block.window_size)
    return tokens + block.mlp(block.norm2(tokens))


def attend(attention: Attention, tokens: Tensor, window: int) -> Tensor:
    """Attention of normalised tokens (B,h,w,D) inside windows of `window` tokens a side; 0: over the whole grid.

    The library writes down n·N x N weights and, twice, the bias of the relative positions that is added to them.
    That bias is a sum of two dot products, (q · R_row) + (q · R_column): see `_of_longer_queries` and `_head_by_head`.
    """
    h, w = tokens.shape[1:3]
    qkv = F.linear(tokens, attention.qkv.weight)
    if window:
        qkv, padded = window_partition(qkv, window)
    if attention.qkv.bias is not None:
        qkv = qkv + attention.qkv.bias  # after the padding: the library pads what it projects, so padding is not 0
    a, b = qkv.shape[1:3]
    query, key, value = (
        qkv.flatten(1, 2).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    )  # (G,n,a·b,d)
    if attention.use_rel_pos:
        grid = query.unflatten(2, (a, b))
        rows = torch.einsum("gnabd,akd->gnabk", grid, get_rel_pos(a, a, attention.rel_pos_h))
        columns = torch.einsum("gnabd,bkd->gnabk", grid, get_rel_pos(b, b, attention.rel_pos_w))
        # On CPUs head by head is 1.7 times as fast (2.2 in bf16) at 64 x 64 tokens, and no faster in windows. A mask
        # with a gradient has no fused kernel.
        alone = tokens.device.type == "cpu" and not window and not torch.is_grad_enabled()
        mix = _head_by_head if alone else _of_longer_queries
        mixed = mix(query, key, value, rows, columns, attention.scale)
    else:
        mixed = F.scaled_dot_product_attention(query, key, value, scale=attention.scale)
    mixed = mixed.transpose(1, 2).flatten(2).unflatten(1, (a, b))
    if window:
        mixed = window_unpartition(mixed, window, padded, (h, w))
    return attention.proj(mixed)


def _of_longer_queries(
    query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor, scale: float
) -> Tensor:
    """The bias as part of one dot product, [scale · q, q · R_rows, q · R_columns] · [k, one-hot row, one-hot column]: a
    fused kernel needs no N x N matrix at all.

    Args:
        query, key, value: (G,n,a·b,d).
        rows, columns: what the bias adds up, (G,n,a,b,a) and (G,n,a,b,b).
    """
    a, b = columns.shape[2:4]
    query = torch.cat([scale * query, rows.flatten(2, 3), columns.flatten(2, 3)], dim=-1)
    row, column = (torch.eye(side, dtype=key.dtype, device=key.device) for side in (a, b))
    places = torch.cat([row.repeat_interleave(b, dim=0), column.repeat(a, 1)], dim=1)
    key = torch.cat([key, places.expand(*key.shape[:2], -1, -1)], dim=-1)
    longer = F.pad(value, (0, a + b))  # the fused kernels want one width; the rest of the output is cut off
    return F.scaled_dot_product_attention(query, key, longer, scale=1.0)[..., : value.shape[-1]]


def _head_by_head(query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor, scale: float) -> Tensor:
    """The bias as a mask, which is written down for one head at a time; arguments as of `_of_longer_queries`."""
    mixed = []
    for head in zip(*(part.split(1, dim=1) for part in (query, key, value, rows, columns)), strict=True):
        q, k, v, of_rows, of_columns = head
        bias = of_rows.flatten(2, 3)[..., :, None] + of_columns.flatten(2, 3)[..., None, :]  # (G,1,a·b,a,b)
        mixed.append(F.scaled_dot_product_attention(q, k, v, attn_mask=bias.flatten(3), scale=scale))
    return torch.cat(mixed, dim=1)

"""SAM's image encoder, from segment_anything.

Legend: B batch, H', W' resized image in pixels, S side of the padded square, h, w token grid, D width.
"""

import functools

import torch.nn.functional as F
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from sak.errors import UserError
from teachers.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    RANDOM,
    Teacher,
    TeacherSpec,
    building,
    load_weights,
    resize_position_embedding,
    unknown,
)

_COMMON = {"img_size": 1024, "patch_size": 16, "window_size": 14, "out_chans": 256, "use_rel_pos": True}
ARCHITECTURES = {  # segment_anything.sam_model_registry, which builds whole models of fixed sizes only
    "vit_b": {**_COMMON, "embed_dim": 768, "depth": 12, "num_heads": 12, "global_attn_indexes": (2, 5, 8, 11)},
    "vit_l": {**_COMMON, "embed_dim": 1024, "depth": 24, "num_heads": 16, "global_attn_indexes": (5, 11, 17, 23)},
    "vit_h": {**_COMMON, "embed_dim": 1280, "depth": 32, "num_heads": 16, "global_attn_indexes": (7, 15, 23, 31)},
}


def image_encoder(model: str, **options) -> ImageEncoderViT:
    """segment_anything's encoder, untrained: `model` is vit_b, vit_l or vit_h, `options` override its arguments."""
    norm = functools.partial(nn.LayerNorm, eps=1e-6)
    return ImageEncoderViT(norm_layer=norm, **{**ARCHITECTURES[model], **options})


class SAM(Teacher):
    """The image encoder of a promptable segmenter (Kirillov et al., arXiv 2304.02643) from segment_anything.

    `model` is `vit_b`, `vit_l` or `vit_h`; `options` are arguments of its `ImageEncoderViT`; `weights` is a
    checkpoint of the whole model, such as `sam_vit_b_01ec64.pth`, or of its `image_encoder.` alone. As in the
    library, the longer side is resized to S (`input_size`, else the encoder's 1024), the normalised image is padded
    with zeros on the right and below to a square; the features are cropped to the part that shows the image.
    """

    def __init__(self, name: str, spec: TeacherSpec):
        if spec.model not in ARCHITECTURES:
            raise UserError(f"teacher {name}: {unknown('SAM model', spec.model, ARCHITECTURES)}")
        if spec.weights is None:
            raise UserError(
                f"teacher {name}: segment_anything downloads nothing; fetch the checkpoint of {spec.model} that its "
                "README links to and give its path as `weights`."
            )
        with building(name, spec):
            backbone = image_encoder(spec.model, **spec.options)
        del backbone.neck  # features are taken before it
        if spec.weights != RANDOM:
            rest = ("image_encoder.neck.", "prompt_encoder.", "mask_decoder.")
            load_weights(backbone, spec.weights, name, prefix="image_encoder.", leave_out=rest)
        projection = backbone.patch_embed.proj
        super().__init__(
            name,
            spec,
            backbone,
            width=projection.out_channels,
            depth=len(backbone.blocks),
            patch_size=projection.kernel_size[0],
            mean=IMAGENET_MEAN,  # SAM's own, written there as 0..255
            std=IMAGENET_STD,
        )
        self.input_size = spec.input_size or backbone.img_size
        if self.input_size % self.patch_size:
            raise UserError(f"teacher {name}: input_size {self.input_size} is not a multiple of {self.patch_size}.")

    def resized(self, height: int, width: int) -> tuple[int, int]:
        scale = self.input_size / max(height, width)
        return int(height * scale + 0.5), int(width * scale + 0.5)

    def features(self, inputs: Tensor) -> list[Tensor]:
        height, width = inputs.shape[-2:]
        h, w = self.grid(height, width)
        inputs = F.pad(inputs, (0, self.input_size - width, 0, self.input_size - height))  # (B,3,S,S)
        tokens = self.backbone.patch_embed(inputs)  # (B,S/p,S/p,D)
        position = resize_position_embedding(self.backbone.pos_embed.permute(0, 3, 1, 2), tokens.shape[1:3])
        tokens = tokens + position.permute(0, 2, 3, 1)
        levels = []
        for index, block in enumerate(self.backbone.blocks[: self.levels[-1] + 1]):
            tokens = block(tokens)
            if index in self.levels:
                levels.append(tokens[:, :h, :w].permute(0, 3, 1, 2))
        return levels

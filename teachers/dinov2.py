"""DINOv2, and any other vision transformer of timm.

Legend: B batch, H', W' resized image in pixels, h, w token grid, D width.
"""

import timm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from sak.errors import UserError
from teachers.base import RANDOM, Teacher, TeacherSpec, building, load_weights, unknown


class DINOv2(Teacher):
    """Self-distilled vision transformers (Oquab et al., arXiv 2304.07193) from timm.

    `model` is timm's name, for example `vit_base_patch14_dinov2.lvd142m`; `options` are keyword arguments of
    `timm.create_model` (embed_dim, depth, num_heads, patch_size, img_size, ...). As the family is timm's, it also
    takes `vit_base_patch16_clip_384.laion2b_ft_in12k_in1k`, the CLIP of the published SAK code. The position
    embedding follows the input's size.
    """

    def __init__(self, name: str, spec: TeacherSpec):
        if not timm.is_model(spec.model.split(".")[0]):
            raise UserError(f"teacher {name}: {unknown('timm model', spec.model, timm.list_models('vit*'))}")
        with building(name, spec):
            backbone = timm.create_model(
                spec.model, pretrained=spec.weights is None, num_classes=0, dynamic_img_size=True, **spec.options
            )
        if not isinstance(backbone, VisionTransformer):
            raise UserError(f"teacher {name}: {spec.model} is not a plain vision transformer of timm.")
        if spec.weights not in (None, RANDOM):
            # classifier heads, and DINOv2's token for masked training, play no part in the features
            load_weights(backbone, spec.weights, name, leave_out=("head.", "mask_token"))
        super().__init__(
            name,
            spec,
            backbone,
            width=backbone.embed_dim,
            depth=len(backbone.blocks),
            patch_size=backbone.patch_embed.patch_size[0],
            mean=backbone.pretrained_cfg["mean"],
            std=backbone.pretrained_cfg["std"],
        )

    def features(self, inputs: Tensor) -> list[Tensor]:
        return self.backbone.forward_intermediates(
            inputs, indices=self.levels, norm=False, stop_early=True, intermediates_only=True
        )

"""DINOv2, and any other plain vision transformer of timm."""

import dataclasses

from timm.models.vision_transformer import VisionTransformer

from sak.errors import UserError
from teachers.base import TeacherSpec
from teachers.timm_models import Timm

# The names of torch.hub's facebookresearch/dinov2.
TORCH_HUB = {
    f"dinov2_vit{size[0]}14{registers}": f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2.lvd142m"
    for size in ("small", "base", "large", "giant")
    for registers in ("", "_reg")
}


class DINOv2(Timm):
    """Self-distilled vision transformers (Oquab et al., arXiv 2304.07193) from timm.

    `model` is `vit_{small,base,large,giant}_patch14_dinov2.lvd142m`, with registers `..._patch14_reg4_dinov2.lvd142m`,
    or as torch.hub calls them, `dinov2_vit{s,b,l,g}14` and `dinov2_vit{s,b,l,g}14_reg`; `weights` may be timm's file or
    the original `dinov2_vit{s,b,l,g}14_pretrain.pth`. The family takes plain vision transformers of timm alone, among
    them `vit_base_patch16_clip_384.laion2b_ft_in12k_in1k`, the CLIP of the published SAK code. `options` are keyword
    arguments of `timm.create_model` (embed_dim, depth, num_heads, patch_size, img_size, ...).
    """

    def __init__(self, name: str, spec: TeacherSpec):
        spec = dataclasses.replace(spec, model=TORCH_HUB.get(spec.model, spec.model))
        super().__init__(name, spec)
        if not isinstance(self.backbone, VisionTransformer):
            raise UserError(f"teacher {name}: {spec.model} is not a plain vision transformer; its family is `timm`.")

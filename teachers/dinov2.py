"""DINOv2, and any other plain vision transformer of timm."""

from timm.models.vision_transformer import VisionTransformer

from sak.errors import UserError
from teachers.base import TeacherSpec
from teachers.timm_models import Timm


class DINOv2(Timm):
    """Self-distilled vision transformers (Oquab et al., arXiv 2304.07193) from timm.

    `model` is `vit_{small,base,large,giant}_patch14_dinov2.lvd142m`, with registers `..._patch14_reg4_dinov2.lvd142m`;
    `weights` may be timm's file or the original `dinov2_vit{s,b,l,g}14_pretrain.pth`. The family takes plain vision
    transformers of timm alone, among them `vit_base_patch16_clip_384.laion2b_ft_in12k_in1k`, the CLIP of the published
    SAK code. `options` are keyword arguments of `timm.create_model` (embed_dim, depth, num_heads, patch_size,
    img_size, ...).
    """

    def __init__(self, name: str, spec: TeacherSpec):
        super().__init__(name, spec)
        if not isinstance(self.backbone, VisionTransformer):
            raise UserError(f"teacher {name}: {spec.model} is not a plain vision transformer; its family is `timm`.")

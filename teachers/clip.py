"""CLIP's image tower, from open_clip.

Legend: B batch, H', W' resized image in pixels, h, w token grid, N = h·w patch tokens, D width.
"""

import open_clip
import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from open_clip.transformer import VisionTransformer
from torch import Tensor

from sak.errors import UserError
from teachers.base import RANDOM, Teacher, TeacherSpec, building, load_weights, resize_position_embedding, unknown

# the keys beside `visual.` in checkpoints of open_clip's CLIP and CustomTextCLIP
TEXT_TOWER = (
    "text.", "transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection", "attn_mask",
    "logit_scale", "logit_bias",
)  # fmt: skip


class CLIP(Teacher):
    """The image tower of an image-text contrastive model (Radford et al., arXiv 2103.00020) from open_clip.

    `model` is open_clip's name, for example `ViT-B-16` (`ViT-B-16-quickgelu` for a local file of OpenAI's weights).
    `options`: `pretrained`, the tag of the weights to download where `weights` is not given, for example
    `laion2b_s34b_b88k`; all others override the model's vision config (width, layers, head_width, patch_size,
    image_size, ...) or its `embed_dim`. The position embedding is resized to the input's grid.
    """

    def __init__(self, name: str, spec: TeacherSpec):
        config = open_clip.get_model_config(spec.model)
        if config is None:
            raise UserError(f"teacher {name}: {unknown('open_clip model', spec.model, open_clip.list_models())}")
        options = dict(spec.options)
        tag = options.pop("pretrained", None)
        mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
        with building(name, spec):
            if spec.weights is None:
                backbone = _download(name, spec.model, tag, options)
                mean, std = backbone.preprocess_cfg["mean"], backbone.preprocess_cfg["std"]
            else:
                embed_dim = options.pop("embed_dim", config["embed_dim"])
                vision = CLIPVisionCfg(**{**config["vision_cfg"], **options})
                backbone = _build_vision_tower(embed_dim, vision, quick_gelu=config.get("quick_gelu", False))
        if not isinstance(backbone, VisionTransformer):
            raise UserError(f"teacher {name}: the image tower of {spec.model} is not open_clip's vision transformer.")
        if spec.weights not in (None, RANDOM):
            load_weights(backbone, spec.weights, name, prefix="visual.", leave_out=TEXT_TOWER)
        super().__init__(
            name,
            spec,
            backbone,
            width=backbone.conv1.out_channels,
            depth=len(backbone.transformer.resblocks),
            patch_size=backbone.patch_size[0],
            mean=mean,
            std=std,
        )

    def features(self, inputs: Tensor) -> list[Tensor]:
        visual = self.backbone
        patches = visual.conv1(inputs)  # (B,D,h,w)
        h, w = patches.shape[-2:]
        tokens = torch.cat(
            [visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1), patches.flatten(2).transpose(1, 2)],
            dim=1,
        )
        tokens = visual.ln_pre(tokens + self._position_embedding(h, w).to(tokens.dtype))  # (B,1+N,D)
        _, levels = visual.transformer.forward_intermediates(tokens, indices=self.levels, stop_early=True)
        return [level[:, 1:].transpose(1, 2).unflatten(2, (h, w)) for level in levels]

    def _position_embedding(self, h: int, w: int) -> Tensor:
        """(1+h·w, D): the class token's row, then the patches' rows at the input's grid."""
        embedding = self.backbone.positional_embedding
        patches = embedding[1:].T.unflatten(1, self.backbone.grid_size).unsqueeze(0)
        return torch.cat([embedding[:1], resize_position_embedding(patches, (h, w))[0].flatten(1).T])


def _download(name: str, model: str, tag: str | None, options: dict) -> VisionTransformer:
    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag not in tags:
        raise UserError(
            f"teacher {name}: {model} without a `weights` file needs options.pretrained, one of: {', '.join(tags)}."
        )
    if options:
        raise UserError(f"teacher {name}: options {', '.join(options)} do not go with downloaded weights of {model}.")
    return open_clip.create_model(model, pretrained=tag).visual

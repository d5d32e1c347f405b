"""CLIP's image tower, from open_clip.

Legend: B batch, H', W' resized image in pixels, h, w token grid, N = h·w patch tokens, D width.
"""

from pathlib import Path

import open_clip
import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from open_clip.modified_resnet import ModifiedResNet
from open_clip.pretrained import get_pretrained_cfg
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor

from sak.errors import UserError
from teachers import weights
from teachers.base import RANDOM, Teacher, TeacherSpec, building, resize_position_embedding, unknown

HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # what open_clip itself looks for
# the keys beside `visual.` in checkpoints of open_clip's CLIP and CustomTextCLIP, and of OpenAI's
TEXT_TOWER = (
    "text.", "transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection", "attn_mask",
    "logit_scale", "logit_bias", "input_resolution", "context_length", "vocab_size",
)  # fmt: skip


class CLIP(Teacher):
    """The image tower of an image-text contrastive model (Radford et al., arXiv 2103.00020) from open_clip.

    `model` is open_clip's name, for example `ViT-B-16`. `options`: `pretrained`, the tag of published weights, for
    example `openai`, `laion2b_s34b_b88k` or `dfn2b`; it tells what to download where `weights` is not given, and in
    any case the statistics and the activation (QuickGELU) of the training. All others override the model's vision
    config (width, layers, head_width, patch_size, image_size, ...) or its `embed_dim`.

    Levels are blocks of a transformer, stages of a convolutional tower. The position embedding of open_clip's own
    transformers is resized to the input's grid; a tower that open_clip takes from timm sees every image squeezed to
    the size of its config (`options: {image_size: ...}`).
    """

    def __init__(self, name: str, spec: TeacherSpec):
        config = open_clip.get_model_config(spec.model)
        if config is None:
            raise UserError(f"teacher {name}: {unknown('open_clip model', spec.model, open_clip.list_models())}")
        options = dict(spec.options)
        published = _published(name, spec, options.pop("pretrained", None))
        quick_gelu = config.get("quick_gelu", False) or published.get("quick_gelu", False)
        with building(name, spec):
            embed_dim = options.pop("embed_dim", config["embed_dim"])
            vision = CLIPVisionCfg(**{**config["vision_cfg"], "timm_model_pretrained": False, **options})
            backbone = _build_vision_tower(embed_dim, vision, quick_gelu=quick_gelu)
        report = None
        if spec.weights != RANDOM:
            file = weights.local(spec.weights, name) if spec.weights else _file(name, spec, published["hf_hub"])
            state = weights.read(file, name)
            report = weights.load(backbone, state, file, name, prefix="visual.", leave_out=TEXT_TOWER)
        widths, strides = _stages(backbone)
        super().__init__(
            name,
            spec,
            backbone,
            widths=widths,
            strides=strides,
            mean=published.get("mean", open_clip.OPENAI_DATASET_MEAN),
            std=published.get("std", open_clip.OPENAI_DATASET_STD),
            report=report,
        )
        self.fixed_size = tuple(backbone.image_size) if isinstance(backbone, TimmModel) else None
        if self.fixed_size and spec.input_size is not None:
            raise UserError(f"teacher {name}: {spec.model} has a fixed size; set options.image_size, not input_size.")
        self.refuse_crop(self.fixed_size is not None)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        return self.fixed_size or super().resized(height, width)

    def features(self, inputs: Tensor) -> list[Tensor]:
        visual = self.backbone
        if not isinstance(visual, VisionTransformer):
            out = visual.forward_intermediates(inputs, indices=self.levels, stop_early=True, intermediates_only=True)
            return out["image_intermediates"]
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
        embedding = self.backbone.positional_embedding.float()
        patches = embedding[1:].T.unflatten(1, self.backbone.grid_size).unsqueeze(0)
        return torch.cat([embedding[:1], resize_position_embedding(patches, (h, w))[0].flatten(1).T])


def _published(name: str, spec: TeacherSpec, tag: str | None) -> dict:
    """open_clip's entry of the tag: {hf_hub, mean, std, quick_gelu, ...}; empty without a tag."""
    tags = open_clip.list_pretrained_tags_by_model(spec.model)
    if tag is None and spec.weights is None:
        raise UserError(
            f"teacher {name}: {spec.model} without a `weights` file needs options.pretrained, one of {', '.join(tags)}."
        )
    if tag is not None and tag not in tags:
        raise UserError(f"teacher {name}: {unknown(f'options.pretrained of {spec.model}', tag, tags)}")
    return get_pretrained_cfg(spec.model, tag) if tag else {}


def _file(name: str, spec: TeacherSpec, location: str) -> Path:
    """`location` is `organisation/repository/` or `organisation/repository/file`."""
    repo, _, file = location.rpartition("/")
    return weights.from_hub(name, repo, [file] if file else HUB_FILES, spec.revision)


def _stages(tower: VisionTransformer | TimmModel | ModifiedResNet) -> tuple[list[int], list[int]]:
    """(width, pixels per token and side) of every block or stage of open_clip's three kinds of image tower."""
    if isinstance(tower, VisionTransformer):
        depth = len(tower.transformer.resblocks)
        return [tower.conv1.out_channels] * depth, [tower.patch_size[0]] * depth
    if isinstance(tower, TimmModel):
        stages = tower.trunk.feature_info
        return [stage["num_chs"] for stage in stages], [stage["reduction"] for stage in stages]
    stem = tower.bn3.num_features  # ModifiedResNet: the stem, then four stages of bottlenecks
    return [stem, 4 * stem, 8 * stem, 16 * stem, 32 * stem], [4, 4, 8, 16, 32]

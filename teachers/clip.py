"""CLIP's image tower, from open_clip.

Legend: B batch, H', W' resized image in pixels, h, w token grid, N = h·w patch tokens, D width.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

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
from teachers.checkpoints import State

CONFIG = "open_clip_config.json"
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # what open_clip itself looks for
# the keys beside `visual.` in checkpoints of open_clip's CLIP and CustomTextCLIP, and of OpenAI's
TEXT_TOWER = (
    "text.", "transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection", "attn_mask",
    "logit_scale", "logit_bias", "input_resolution", "context_length", "vocab_size",
)  # fmt: skip
OPENAIS = {"input_resolution", "context_length", "vocab_size"}  # in OpenAI's own files alone
OPENAI = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD, "quick_gelu": True}


class CLIP(Teacher):
    """The image tower of an image-text contrastive model (Radford et al., arXiv 2103.00020) from open_clip.

    `model` is open_clip's name, for example `ViT-B-16`, or `hf-hub:ORGANISATION/REPOSITORY`, or a folder that holds the
    files of such a repository. `options`: `pretrained`, the tag of published weights, for example `openai`,
    `laion2b_s34b_b88k` or `dfn2b`: it tells what to download where `weights` is not given, and in any case the
    statistics and the activation (QuickGELU) of the training. `mean`, `std` and `quick_gelu` give them by themselves,
    for weights without a tag that do not tell. All others override the model's vision config (width, layers,
    head_width, patch_size, image_size, ...) or its `embed_dim`.

    Levels are blocks of a transformer, stages of a convolutional tower. The position embedding of open_clip's own
    transformers is resized to the input's grid; a tower that open_clip takes from timm sees every image squeezed to
    the size of its config (`options: {image_size: ...}`).
    """

    LIBRARIES = ("open_clip_torch", "timm")

    def __init__(self, name: str, spec: TeacherSpec):
        options = dict(spec.options)
        given = {key: options.pop(key) for key in OPENAI if key in options}
        model = _find(name, spec, options.pop("pretrained", None))
        if spec.weights == RANDOM:
            told = {**OPENAI, "quick_gelu": False}
        else:
            file = weights.local(spec.weights, name, HUB_FILES) if spec.weights else model.fetch()
            state = weights.read(file, name)
            told = _told_by(file, state, model.config, name)
        facts = {**told, **model.facts, **given}
        with building(name, spec):
            embed_dim = options.pop("embed_dim", model.config["embed_dim"])
            vision = CLIPVisionCfg(**{**model.config["vision_cfg"], "timm_model_pretrained": False, **options})
            backbone = _build_vision_tower(embed_dim, vision, quick_gelu=bool(facts.get("quick_gelu")))
        report = None
        if spec.weights != RANDOM:
            report = weights.load(backbone, state, file, name, prefix="visual.", leave_out=TEXT_TOWER)
            _require(facts, isinstance(backbone, VisionTransformer), file, name, spec)
        with building(name, spec):
            mean, std = ([float(value) for value in facts[key]] for key in ("mean", "std"))
            if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
                raise ValueError(f"mean is {mean} and std is {std}, but both must be three numbers, std positive")
        widths, strides = _stages(backbone)
        super().__init__(
            name,
            spec,
            backbone,
            widths=widths,
            strides=strides,
            mean=mean,
            std=std,
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


@dataclasses.dataclass
class Model:
    """What `model` and the tag stand for.

    Attributes:
        config: open_clip's: embed_dim, vision_cfg, ...
        facts: what is known of the training: mean, std, quick_gelu.
        fetch: gives the file of its weights.
    """

    config: Mapping[str, Any]
    facts: dict[str, Any]
    fetch: Callable[[], Path]


def _find(name: str, spec: TeacherSpec, tag: str | None) -> Model:
    kind, _, place = spec.model.rpartition(":")
    folder = Path(place).expanduser()
    if kind not in ("hf-hub", "local-dir") and not (folder / CONFIG).is_file():
        return _named(name, spec, tag)
    if tag is not None:
        raise UserError(
            f"teacher {name}: options.pretrained is for open_clip's own names; leave it out, or {spec.model}."
        )
    if kind == "hf-hub":
        instead = f"the folder that holds it and {HUB_FILES[0]} as `model`"
        file = weights.from_hub(name, place, [CONFIG], spec.revision, instead)
        return _configured(file, name, lambda: weights.from_hub(name, place, HUB_FILES, spec.revision))
    return _configured(folder / CONFIG, name, lambda: weights.local(str(folder), name, HUB_FILES))


def _named(name: str, spec: TeacherSpec, tag: str | None) -> Model:
    config = open_clip.get_model_config(spec.model)
    if config is None:
        raise UserError(f"teacher {name}: {unknown('open_clip model', spec.model, open_clip.list_models())}")
    tags = open_clip.list_pretrained_tags_by_model(spec.model)
    if tag is None and spec.weights is None:
        raise UserError(
            f"teacher {name}: {spec.model} without a `weights` file needs options.pretrained, one of {', '.join(tags)}."
        )
    if tag is None:  # a name that ends so is told apart by nothing else
        return Model(config, {"quick_gelu": True} if config.get("quick_gelu") else {}, Path)
    if tag not in tags:
        raise UserError(f"teacher {name}: {unknown(f'options.pretrained of {spec.model}', tag, tags)}")
    published = get_pretrained_cfg(spec.model, tag)
    facts = {key: published.get(key, OPENAI[key]) for key in ("mean", "std")}
    facts["quick_gelu"] = config.get("quick_gelu", False) or published.get("quick_gelu", False)
    repo, _, file = published["hf_hub"].rpartition("/")  # organisation/repository/, or that and a file
    return Model(config, facts, lambda: weights.from_hub(name, repo, [file] if file else HUB_FILES, spec.revision))


def _configured(file: Path, name: str, fetch: Callable[[], Path]) -> Model:
    """Of a repository's config."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        config, pixels = content["model_cfg"], content.get("preprocess_cfg", {})
        facts = {key: pixels.get(key, OPENAI[key]) for key in ("mean", "std")}
        return Model(config, {**facts, "quick_gelu": config.get("quick_gelu", False)}, fetch)
    except OSError as error:
        raise UserError(f"teacher {name}: {file} cannot be read ({error.strerror}); correct `model`.") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"teacher {name}: {file} is no config of open_clip; fetch it again.") from error


def _told_by(file: Path, state: State, config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a file of weights tells of its training: by its own notes, as OpenAI's by its keys, or by its folder."""
    facts: dict[str, Any] = {}
    if (file.parent / CONFIG).is_file():
        beside = _configured(file.parent / CONFIG, name, Path)
        facts |= beside.facts if beside.config.get("vision_cfg") == config["vision_cfg"] else {}
    facts |= OPENAI if {key.rpartition(".")[2] for key in state} >= OPENAIS else {}
    facts |= {key: state.facts[key] for key in ("mean", "std") if key in state.facts}
    if "activation" in state.facts:
        facts["quick_gelu"] = state.facts["activation"] == "QuickGELU"
    return facts


def _require(facts: Mapping[str, Any], activation: bool, file: Path, name: str, spec: TeacherSpec) -> None:
    """Raise a `UserError` where nothing tells what the features depend on."""
    needed = ("mean", "std", "quick_gelu") if activation else ("mean", "std")
    if missing := [f"options.{key}" for key in needed if key not in facts]:
        tags = open_clip.list_pretrained_tags_by_model(spec.model)
        tag = f"options.pretrained, the tag that it is of or was trained from ({', '.join(tags)}), or " if tags else ""
        raise UserError(
            f"teacher {name}: {file} does not tell what its pixels were normalised with and which activation it has; "
            f"set {tag}{', '.join(missing)}."
        )


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

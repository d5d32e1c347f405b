"""Any model of timm that gives its intermediate features: transformers by block, convolutional networks by stage.

Legend: B batch, H', W' resized image in pixels, h, w grid of a level, D its width.
"""

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from sak.errors import UserError
from teachers import weights
from teachers.base import RANDOM, Teacher, TeacherSpec, building, unknown

HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # what timm itself looks for


class Timm(Teacher):
    """A model of timm: SigLIP 2, DINOv3, EVA, C-RADIO, ConvNeXt, ResNet, ...

    `model` is timm's name with the tag of its weights, for example `vit_base_patch16_dinov3.lvd1689m`; `options` are
    keyword arguments of `timm.create_model`. Levels are blocks of a plain transformer, and stages of any network
    that has them; widths and grids then differ from level to level. Position embeddings follow the input's size
    where the architecture can do that (`dynamic_img_size`); one that is built for a fixed size sees every image
    squeezed to it (`options: {img_size: ...}` chooses it).
    """

    LIBRARIES = ("timm",)

    def __init__(self, name: str, spec: TeacherSpec):
        _check_name(name, spec.model)
        with building(name, spec):
            with torch.device("meta"):  # costs nothing: tells what the architecture can do
                sketch = timm.create_model(spec.model, num_classes=0, **spec.options)
            dynamic = "dynamic_img_size" in inspect.signature(type(sketch).__init__).parameters
            options = {"dynamic_img_size": True, **spec.options} if dynamic else spec.options
            backbone: Any = timm.create_model(spec.model, num_classes=0, **options)
        if not hasattr(backbone, "forward_intermediates"):
            raise UserError(f"teacher {name}: timm's {spec.model} does not give its intermediate features.")
        report = None
        if spec.weights != RANDOM:
            given = spec.weights and weights.local(spec.weights, name, HUB_FILES)
            file = given or _published(name, spec, backbone.pretrained_cfg)
            report = load(backbone, weights.read(file, name), file, name)
        super().__init__(
            name,
            spec,
            backbone,
            widths=[stage["num_chs"] for stage in backbone.feature_info],
            strides=[stage["reduction"] for stage in backbone.feature_info],
            mean=backbone.pretrained_cfg["mean"],
            std=backbone.pretrained_cfg["std"],
            report=report,
        )
        fixed = backbone.pretrained_cfg.get("fixed_input_size") and not options.get("dynamic_img_size")
        size = options.get("img_size", backbone.pretrained_cfg["input_size"][1:]) if fixed else None
        self.fixed_size = (size, size) if isinstance(size, int) else size and tuple(size)
        if fixed and spec.input_size is not None:
            raise UserError(f"teacher {name}: {spec.model} has a fixed size; set options.img_size, not input_size.")
        self.refuse_crop(self.fixed_size is not None)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        return self.fixed_size or super().resized(height, width)

    def features(self, inputs: Tensor) -> list[Tensor]:
        return self.backbone.forward_intermediates(
            inputs, indices=self.levels, norm=False, stop_early=True, intermediates_only=True
        )


def load(backbone: nn.Module, state: Mapping[str, Tensor], file: Path, teacher: str) -> weights.LoadReport:
    """Load a file in timm's names or in the original ones that timm converts; classifiers are left out.

    Raises:
        UserError: a name is missing or left over, or a shape does not fit.
    """
    classifiers = cast(Mapping, backbone.pretrained_cfg).get("classifier") or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    heads = (*(f"{classifier}." for classifier in classifiers), "head.", "mask_token")
    heads = tuple(head for head in heads if not any(key.startswith(head) for key in backbone.state_dict()))
    own = backbone.state_dict()
    state = weights.unwrapped(state, own, file, teacher)
    weights.check_numbers(state, own, file, teacher)  # before positions are resized, which mixes their values
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    converted = dict(state)
    if convert is not None:  # timm's own, per file of models: original names, positions at another size
        try:
            converted = convert(dict(state), backbone)
        except Exception as error:  # whatever tensors of other shapes or names happen to meet
            raise UserError(
                f"teacher {teacher}: {file} is not a checkpoint of {type(backbone).__name__} ({error!r}); check "
                "family, model and weights."
            ) from error
    report = weights.load(backbone, state.replaced(converted), file, teacher, leave_out=heads)
    report.left_out = [*state.beside, *(key for key in state if key.startswith(heads))]
    report.resized = [key for key in state if key in converted and state[key].shape != converted[key].shape]
    return report


def _check_name(teacher: str, model: str) -> None:
    architecture, _, tag = model.partition(".")
    if not timm.is_model(architecture):
        raise UserError(f"teacher {teacher}: {unknown('timm model', architecture, timm.list_models())}")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise UserError(f"teacher {teacher}: {unknown(f'weights of {architecture}', tag, tags)}")


def _published(teacher: str, spec: TeacherSpec, config: Mapping) -> Path:
    repo = config.get("hf_hub_id")
    if not repo:
        raise UserError(
            f"teacher {teacher}: timm has no published weights of {spec.model} on the hub; give a file as `weights`, "
            "or `weights: random` for an untrained network."
        )
    files = [config["hf_hub_filename"]] if config.get("hf_hub_filename") else HUB_FILES
    return weights.from_hub(teacher, repo, files, spec.revision)

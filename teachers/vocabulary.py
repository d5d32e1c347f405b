"""The encoder of a vision vocabulary (docs/vocabulary.md): so that a student learns what reading and pointing take."""

from pathlib import Path
from typing import Any

import open_clip
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from sak.errors import UserError
from sak.files import read_json
from teachers import weights
from teachers.base import RANDOM, TeacherSpec, building, unknown
from teachers.sam import ARCHITECTURES, Encoder, image_encoder

PIXELS = {
    "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "clip": (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD),
}
CONFIG, WEIGHTS = "config.json", "model.safetensors"  # of a bundle
OURS = "vision.network."  # before the encoder's names in it
# What lies behind the encoder, and beside the network in a bundle.
BEHIND = ("neck.", "net_")
BESIDE = (
    "vision.projection.", "vision.branch", "vision.class_embedding", "vision.positions", "vision.ln_pre.",
    "vision.blocks.", "language_model.",
)  # fmt: skip


class Vocabulary(Encoder):
    """The blocks of a vocabulary network (Wei et al., arXiv 2312.06109), which is an encoder of segment_anything.

    `weights` is a run of the stage `vocabulary` or its bundle, which says what the encoder is. Or it is a file of
    published weights of Vary (or `random`), with `model` and `options` as of the family `sam`, and the option
    `statistics` of its pixels: `clip`, which is meant without it, or `imagenet`. Images are seen as by that family.
    """

    def __init__(self, name: str, spec: TeacherSpec):
        if spec.weights is None:
            raise UserError(f"teacher {name}: weights is null; give a run of the stage vocabulary, or its bundle.")
        if spec.model not in ARCHITECTURES:
            raise UserError(f"teacher {name}: {unknown('model of a vocabulary', spec.model, ARCHITECTURES)}")
        options = dict(spec.options)
        statistics = options.pop("statistics", "clip")
        model, prefix, file = spec.model, "", None
        if spec.weights != RANDOM:
            file = weights.local(spec.weights, name, (f"student/{WEIGHTS}", WEIGHTS))
            if (file.parent / CONFIG).is_file():
                if spec.options:
                    raise UserError(f"teacher {name}: {spec.weights} says what its encoder is; leave options out.")
                told = _told(file.parent / CONFIG, name)
                model, statistics, prefix = told["model"], told["statistics"], OURS
                options = {**told["options"], "img_size": max(told["image_size"])}
        with building(name, spec):
            backbone = image_encoder(model, **options)
            mean, std = PIXELS[statistics]
        del backbone.neck
        report = None
        if file is not None:
            leave_out = (*(f"{prefix}{part}" for part in BEHIND), *BESIDE)
            report = weights.load(backbone, weights.read(file, name), file, name, prefix, leave_out)
        super().__init__(name, spec, backbone, mean, std, report)


def _told(config: Path, name: str) -> dict[str, Any]:
    """What a bundle says of its network."""
    content = read_json(config)
    if content.get("kind") != "vocabulary" or not isinstance(content.get("network"), dict):
        raise UserError(f"teacher {name}: {config.parent} is no bundle of a vocabulary; correct `weights`.")
    return content["network"]

"""A plain supervised ViT in miniature: which things are in the picture, as ImageNet's classifiers learn it.

The reference that the committee is compared with: the same kind of network on the same scenes, taught by labels alone
(Dosovitskiy et al., arXiv 2010.11929; Steiner et al., arXiv 2106.10270). A rendered scene shows several things where
a picture of ImageNet shows one, so each class is a question of its own.

Legend: B images, C classes, N scenes.
"""

import dataclasses
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from sak.errors import UserError
from teachers.base import TeacherSpec
from teachers.pretrain import data
from teachers.pretrain.loop import Objective
from teachers.pretrain.miniatures import IMAGE_SIZE, MINIATURES

# Half of the patches are dropped for most of the training, which doubles its speed (see `contrastive`).
PATCH_DROPOUT, WHOLE_IMAGES_FROM = 0.5, 0.85


def specification(width: int | None = None) -> TeacherSpec:
    """That of the miniature, or of another width.

    Raises:
        UserError: the miniature's heads do not divide the width.
    """
    spec = MINIATURES["vit"]
    if width is None:
        return spec
    if width % spec.options["num_heads"]:
        raise UserError(f"the width {width} is no multiple of the {spec.options['num_heads']} heads; choose another.")
    return dataclasses.replace(spec, options={**spec.options, "embed_dim": width})


class Supervised(Objective):
    """The objective; `backbone` is timm's vision transformer with a classifier on its class token.

    Args:
        width: D of its tokens; None: the miniature's.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, scenes: data.Scenes, batch_size: int, width: int | None = None):
        super().__init__(scenes, batch_size)
        self.classes = scenes.things.any(dim=0).nonzero().flatten()  # those that any scene shows
        self.labels = scenes.things[:, self.classes].float()
        spec = specification(width)
        backbone: Any = timm.create_model(
            spec.model, num_classes=len(self.classes), dynamic_img_size=True, patch_drop_rate=PATCH_DROPOUT,
            **spec.options,
        )  # fmt: skip
        self.backbone: VisionTransformer = backbone
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(backbone.pretrained_cfg[name]).view(1, 3, 1, 1), False)

    def loss(self, progress: float, generator: torch.Generator) -> Tensor:
        """Binary cross-entropy of every class, for random views of random scenes."""
        self.backbone.patch_drop.prob = PATCH_DROPOUT if progress < WHOLE_IMAGES_FROM else 0.0
        index = torch.randperm(len(self.scenes), generator=generator)[: self.batch_size]
        images = data.view(self.scenes.images[index], IMAGE_SIZE, (0.5, 1.0), generator)
        images = data.distort(images, generator, strength=0.3, blur=0.1)
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.backbone((images - self.mean) / self.std)
        return F.binary_cross_entropy_with_logits(logits.float(), self.labels[index], reduction="sum") / len(index)

    @torch.no_grad()
    def scores(self, scenes: data.Scenes) -> Tensor:
        """(N,C) logits of the classes for whole scenes."""
        self.backbone.eval()
        images = (data.whole(scenes.images, IMAGE_SIZE) - self.mean) / self.std
        logits = torch.cat([self.backbone(part) for part in images.split(100)])
        self.backbone.train()
        return logits

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Go on from a transformer that was exported before; its classifier starts anew."""
        classifier = {f"head.{key}": value for key, value in self.backbone.head.state_dict().items()}
        self.backbone.load_state_dict({**weights, **classifier})

    def exported(self) -> dict[str, Tensor]:
        """The weights as timm's own checkpoints name them, without the classifier."""
        return {key: value for key, value in self.backbone.state_dict().items() if not key.startswith("head.")}

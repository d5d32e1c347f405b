"""A plain supervised ViT in miniature: which things are in the picture, as ImageNet's classifiers learn it.

The reference that the committee is compared with, and the student's stem: the same kind of network on the same scenes,
taught by labels alone (Dosovitskiy et al., arXiv 2010.11929; Steiner et al., arXiv 2106.10270). A rendered scene shows
several things where a picture of ImageNet shows one, so each class is a question of its own.

Legend: B images, C classes, N scenes.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sak.errors import UserError
from teachers.base import TeacherSpec
from teachers.pretrain import views
from teachers.pretrain.data import Scenes
from teachers.pretrain.loop import Objective, Phase
from teachers.pretrain.miniatures import IMAGE_SIZE, MINIATURES

# The share of patches that is dropped; most is learnt from few of them, which is many times as fast (`contrastive`).
DROPPED = {"few patches": 0.75, "all patches": 0.0}


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
    classes: Tensor

    def __init__(self, scenes: Scenes, width: int | None = None):
        super().__init__(scenes)
        things = scenes.things()
        # those that any scene shows
        self.register_buffer("classes", things.any(dim=0).nonzero().flatten(), persistent=False)
        self.labels = things[:, self.classes].float().to(scenes.images.device)
        spec = specification(width)
        backbone: Any = timm.create_model(
            spec.model, num_classes=len(self.classes), dynamic_img_size=True, patch_drop_rate=0.5, **spec.options
        )
        self.backbone: VisionTransformer = backbone
        # those that a student normalises with, whose stem it may become
        self.register_buffer("mean", torch.tensor(IMAGENET_DEFAULT_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_DEFAULT_STD).view(1, 3, 1, 1), persistent=False)
        self.to(scenes.images.device)

    def losses(self, phase: Phase, generator: torch.Generator) -> dict[str, Tensor]:
        """Binary cross-entropy of every class, for random views of random scenes, half of them the scenes again."""
        self.backbone.patch_drop.prob = DROPPED[phase.name]
        index = torch.randint(len(self.scenes), (phase.batch_size,), generator=generator)
        seen = views.view(views.either(self.scenes, index, generator), IMAGE_SIZE, (0.5, 1.0), generator)
        seen = views.distort(seen, generator, strength=0.3, blur=0.1, recolour=0.2)
        with self.autocast():
            logits = self.backbone((seen - self.mean) / self.std)
        loss = F.binary_cross_entropy_with_logits(logits.float(), self.labels[index], reduction="sum") / len(index)
        return {"classes": loss}

    @torch.no_grad()
    def scores(self, scenes: Scenes) -> Tensor:
        """(N,C) logits of the classes for whole scenes."""
        self.backbone.eval()
        parts = views.whole(scenes.images, IMAGE_SIZE).split(100)
        logits = torch.cat([self.backbone((part.to(self.device) - self.mean) / self.std) for part in parts])
        self.backbone.train()
        return logits.cpu()

    def blocks(self) -> Sequence[nn.Module]:
        return [self.backbone.blocks]

    def exported(self) -> dict[str, Tensor]:
        """The weights as timm's own checkpoints name them, without the classifier."""
        return {key: value for key, value in self.backbone.state_dict().items() if not key.startswith("head.")}

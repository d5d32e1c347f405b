"""DINOv2 in miniature: a network learns to predict what its own momentum average sees in other views.

After DINO (Caron et al., arXiv 2104.14294) for images and iBOT (Zhou et al., arXiv 2111.07832) for patches, which
DINOv2 (Oquab et al., arXiv 2304.07193) joins; from there also the balanced targets and the spread of class tokens.

Legend: B images, V views, N patch tokens, M masked patches, D width, K prototypes, S side of a view in pixels.
"""

import copy
import dataclasses
import math
from typing import cast

import timm
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from teachers.pretrain import data
from teachers.pretrain.loop import Objective
from teachers.pretrain.miniatures import IMAGE_SIZE, MINIATURES


@dataclasses.dataclass(frozen=True)
class Views:
    """Sides in pixels of global and local views, and the share of an image's area that they show."""

    size: int
    scale: tuple[float, float]
    local_size: int
    local_scale: tuple[float, float]


# Small views are cheap. They are cut out rather than shrunk, so that things have the size at which the teacher will be
# used; the last views, from this part of the training on, are as large as its images.
SMALL = Views(48, (0.15, 0.6), 24, (0.03, 0.15))
LARGE = Views(IMAGE_SIZE, (0.35, 1.0), 32, (0.05, 0.25))
LARGE_FROM = 0.88
LOCAL_VIEWS = 4
IMAGE_PROTOTYPES, PATCH_PROTOTYPES = 128, 256  # fewer than there are tokens in a batch to share them
TEACHER_TEMPERATURE, STUDENT_TEMPERATURE = 0.05, 0.1
SPREAD_WEIGHT = 0.1


class Head(nn.Module):
    """Projection of tokens (B,D) onto K prototypes of unit length.

    The batch normalisation spreads the tokens of a batch: at first they hardly differ, and the targets would stay
    uniform for most of a short training.
    """

    def __init__(self, width: int, prototypes: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, 512), nn.GELU(), nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 64))
        self.spread = nn.BatchNorm1d(64, affine=False, track_running_stats=False)
        self.prototypes = nn.Parameter(torch.randn(prototypes, 64))

    def forward(self, tokens: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return F.normalize(self.spread(self.mlp(tokens.float())), dim=-1) @ F.normalize(self.prototypes, dim=-1).T


class Network(nn.Module):
    """The transformer, its two heads and the token that stands for a masked patch."""

    def __init__(self):
        super().__init__()
        spec = MINIATURES["dinov2"]
        # LayerScale starts at 1 instead of 1e-5: this training is a thousand times shorter than DINOv2's
        backbone = timm.create_model(spec.model, num_classes=0, dynamic_img_size=True, init_values=1.0, **spec.options)
        self.backbone = cast(VisionTransformer, backbone)
        self.image_head = Head(self.backbone.embed_dim, IMAGE_PROTOTYPES)
        self.patch_head = Head(self.backbone.embed_dim, PATCH_PROTOTYPES)
        self.mask_token = nn.Parameter(torch.zeros(self.backbone.embed_dim))

    def forward(self, views: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalised views (B,3,S,S), patches hidden where `mask` (B,h,w) is true -> tokens (B,1+N,D), class first."""
        backbone = self.backbone
        tokens = backbone.patch_embed(views)  # (B,h,w,D)
        if mask is not None:
            tokens = torch.where(mask.unsqueeze(-1), self.mask_token.to(tokens.dtype), tokens)
        return backbone.norm(backbone.blocks(backbone.norm_pre(backbone._pos_embed(tokens))))


class SelfDistillation(Objective):
    """The objective; `teacher` is the momentum average, which is what gets exported."""

    mean: Tensor
    std: Tensor

    def __init__(self, scenes: data.Scenes, batch_size: int):
        super().__init__(scenes, batch_size)
        self.student = Network()
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("mean", torch.tensor(IMAGENET_DEFAULT_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_DEFAULT_STD).view(1, 3, 1, 1), persistent=False)

    def loss(self, progress: float, generator: torch.Generator) -> Tensor:
        """Cross-entropy between the teacher's and the student's distributions over prototypes, of each global view
        against every other view and of each hidden patch against the teacher's sight of it, plus the spread."""
        index = torch.randint(len(self.scenes), (self.batch_size,), generator=generator)
        images = self.scenes.images[index]
        views = SMALL if progress < LARGE_FROM else LARGE
        globals_ = torch.cat([self._view(images, views.size, views.scale, generator) for _ in range(2)])
        locals_ = torch.cat(
            [self._view(images, views.local_size, views.local_scale, generator) for _ in range(LOCAL_VIEWS)]
        )
        mask = self._mask(len(globals_), views.size // self.student.backbone.patch_embed.patch_size[0], generator)

        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                seen = self.teacher(globals_)
                image_logits = self.teacher.image_head(seen[:, 0])
                patch_logits = self.teacher.patch_head(seen[:, 1:][mask.flatten(1)])
            tokens = self.student(globals_, mask)
            global_logits = self.student.image_head(tokens[:, 0])
            local_logits = self.student.image_head(self.student(locals_)[:, 0])
            hidden_logits = self.student.patch_head(tokens[:, 1:][mask.flatten(1)])

        targets = balanced(image_logits).chunk(2)
        logits = global_logits.chunk(2) + local_logits.chunk(LOCAL_VIEWS)
        pairs = [(t, v) for t in range(2) for v in range(len(logits)) if t != v]
        image_loss = sum(cross_entropy(logits[v], targets[t]) for t, v in pairs) / len(pairs)
        patch_loss = cross_entropy(hidden_logits, balanced(patch_logits))
        spread_loss = sum(spread(tokens.float()) for tokens in tokens[:, 0].chunk(2)) / 2
        return image_loss + patch_loss + SPREAD_WEIGHT * spread_loss

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        momentum = 1 - 0.01 * 0.5 * (1 + math.cos(math.pi * progress))  # 0.99 -> 1
        for mine, its in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            mine.lerp_(its, 1 - momentum)

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Go on from weights that were exported before."""
        for network in (self.student, self.teacher):
            network.backbone.load_state_dict(weights)

    def exported(self) -> dict[str, Tensor]:
        """The weights as timm's own checkpoints name them."""
        return self.teacher.backbone.state_dict()

    def _view(self, images: Tensor, size: int, scale: tuple[float, float], generator: torch.Generator) -> Tensor:
        view = data.distort(data.view(images, size, scale, generator), generator)
        return (view - self.mean) / self.std

    @staticmethod
    def _mask(count: int, side: int, generator: torch.Generator) -> Tensor:
        """(B,h,w) bool: of each view a random share of up to 60% of the patches is hidden."""
        share = torch.empty(count, 1, 1).uniform_(0, 0.6, generator=generator)
        return torch.rand(count, side, side, generator=generator) < share


def balanced(logits: Tensor, rounds: int = 3) -> Tensor:
    """Teacher logits (B,K) -> distributions (B,K) that use all prototypes alike over the batch.

    Sinkhorn-Knopp (Caron et al., arXiv 2006.09882). A running centre alone let this short training end where every
    distribution is uniform.
    """
    q = (logits / TEACHER_TEMPERATURE).softmax(-1)
    for _ in range(rounds):
        q = q / q.sum(0, keepdim=True)
        q = q / q.sum(1, keepdim=True)
    return q


def spread(tokens: Tensor) -> Tensor:
    """KoLeo (Sablayrolles et al., arXiv 1806.03198) of class tokens (B,D): each keeps away from its nearest other."""
    tokens = F.normalize(tokens, dim=-1)
    with torch.no_grad():
        nearest = (tokens @ tokens.T - 2 * torch.eye(len(tokens))).argmax(1)
    return -((tokens - tokens[nearest]).norm(dim=-1) + 1e-6).log().mean()


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of student logits (B,K) at the student's temperature with target distributions (B,K)."""
    return -(targets * (logits / STUDENT_TEMPERATURE).log_softmax(-1)).sum(-1).mean()

"""DINOv2 in miniature: a network learns to predict what its own momentum average sees in other views.

After DINO (Caron et al., arXiv 2104.14294) for images and iBOT (Zhou et al., arXiv 2111.07832) for patches, which
DINOv2 (Oquab et al., arXiv 2304.07193) joins; from there also the balanced targets and the spread of class tokens.
DINOv2's loss of images alone stayed at that of a uniform guess for hundreds of steps: what views share is hard to see
at first. So their projections are contrasted with those of other scenes as well, with the average as the other side,
as in MoCo v3 (Chen et al., arXiv 2104.02057): that has a gradient from the first step, and spreads what is compared
with the prototypes.
For the patches the same is asked of places: a patch on a thing has to be told from other places by what the average
sees at the same place of the thing in the other view (as in DenseCL, Wang et al., arXiv 2011.09157).

Views of a scene are centred on one of its things, and half of them show the scene again, in other colours and another
light, from another place: so neither colours nor what happens to stand beside a thing say which thing it is.

Legend: B images, V views, N patch tokens, M masked patches, D width, K prototypes, S side of a view in pixels.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import cast

import timm
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from teachers.pretrain import views
from teachers.pretrain.data import Scenes
from teachers.pretrain.loop import Objective, Phase
from teachers.pretrain.miniatures import IMAGE_SIZE, MINIATURES
from teachers.pretrain.prototypes import Head, Queue, balanced, contrast, cross_entropy, spread
from teachers.pretrain.views import View


@dataclasses.dataclass(frozen=True)
class Views:
    """Sides in pixels of global and local views, and the share of an image's area that they show."""

    size: int
    scale: tuple[float, float]
    local_size: int
    local_scale: tuple[float, float]


# Most is learnt from small views, which are cheap, and cut out rather than shrunk, so that things have about the size
# at which the teacher will be used; then from views as large as its images.
VIEWS = {
    "small": Views(48, (0.12, 0.6), 24, (0.05, 0.2)),
    "large": Views(IMAGE_SIZE, (0.4, 1.0), 48, (0.05, 0.2)),
}
GLOBAL_VIEWS, LOCAL_VIEWS = 2, 4
SPREADS = (0.3, 0.7)  # over how much of their thing the middles of global and of local views lie
LOOSE = 0.5  # of a view's half size, how far its middle may be from there
IMAGE_PROTOTYPES, PATCH_PROTOTYPES = 256, 256
QUEUED = 4  # batches of class tokens that share the prototypes
MASKED, HIDDEN = 0.5, (0.1, 0.5)  # share of the global views that are masked, and of the patches hidden there
PLACES = 1024  # at most, of a batch, that are told from each other
SPREAD_WEIGHT = 0.1
MOMENTUM = 0.99  # of the average, to the end
RECOLOURED = 0.5  # share of the views whose hues are turned


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

    def __init__(self, scenes: Scenes):
        super().__init__(scenes)
        self.student = Network()
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.queue = Queue(QUEUED * 2 * 96, IMAGE_PROTOTYPES)
        self.register_buffer("mean", torch.tensor(IMAGENET_DEFAULT_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_DEFAULT_STD).view(1, 3, 1, 1), persistent=False)
        self.boxes = scenes.boxes()
        self.to(scenes.images.device)

    def losses(self, phase: Phase, generator: torch.Generator) -> dict[str, Tensor]:
        """Cross-entropy between the teacher's and the student's distributions over prototypes, of each global view
        against every other view and of each hidden patch against the teacher's sight of it; the contrast of views with
        other scenes', that of places with others, and the spread."""
        index = torch.randperm(len(self.scenes), generator=generator)[: phase.batch_size]
        seen = self.views(index, VIEWS[phase.name], generator)
        globals_ = torch.cat([view.pixels for view in seen[:GLOBAL_VIEWS]])
        locals_ = torch.cat([view.pixels for view in seen[GLOBAL_VIEWS:]])
        side = globals_.shape[-1] // self.student.backbone.patch_embed.patch_size[0]
        mask = views.block_masks(len(globals_), side, HIDDEN, MASKED, generator).to(self.device)
        hidden = mask.flatten(1)

        with self.autocast():
            with torch.no_grad():
                truth = self.teacher(globals_)
                keys = self.teacher.image_head.embed(truth[:, 0])
                place_keys = self.teacher.patch_head.embed(truth[:, 1:])
                image_logits = self.teacher.image_head.compare(keys)
                patch_logits = self.teacher.patch_head.compare(place_keys[hidden])
            tokens = self.student(globals_, mask)
            queries = self.student.image_head.embed(torch.cat([tokens[:, 0], self.student(locals_)[:, 0]]))
            place_queries = self.student.patch_head.embed(tokens[:, 1:])
            logits = self.student.image_head.compare(queries)
            hidden_logits = self.student.patch_head.compare(place_queries[hidden])

        targets = balanced(self.queue.push(image_logits))[: len(globals_)]
        count = phase.batch_size
        return {
            "image": between_views(cross_entropy, logits.split(count), targets.split(count)),
            "contrast": between_views(contrast, queries.split(count), keys.split(count)),
            "places": between_places(
                place_queries.split(count), place_keys.split(count), seen[:GLOBAL_VIEWS], generator
            ),
            "patch": cross_entropy(hidden_logits, balanced(patch_logits)),
            "spread": SPREAD_WEIGHT * torch.stack([spread(part.float()) for part in tokens[:, 0].chunk(2)]).mean(),
        }

    def views(self, index: Tensor, sizes: Views, generator: torch.Generator) -> list[View]:
        """The global views, then the local ones, normalised, by turns of a scene and of the scene again, where there is
        that."""
        things = self.boxes[0, index]
        chosen = views.choose_things(things, generator)

        def view(number: int, side: int, scale: tuple[float, float], spread: float) -> View:
            again = self.scenes.again if number % 2 else None
            images = self.scenes.images if again is None else again[0]
            thing = self.boxes[0 if again is None else 1, index, chosen]
            near = views.points_on(thing, generator, spread)
            boxes, flip = views.boxes(len(index), scale, generator, near, LOOSE), views.flips(len(index), generator)
            seen = views.crop(images[index], boxes, flip, side) / 255
            pixels = (views.distort(seen, generator, recolour=RECOLOURED) - self.mean) / self.std
            return View(pixels, boxes, flip, thing)

        return [
            *(view(number, sizes.size, sizes.scale, SPREADS[0]) for number in range(GLOBAL_VIEWS)),
            *(view(number, sizes.local_size, sizes.local_scale, SPREADS[1]) for number in range(LOCAL_VIEWS)),
        ]

    @torch.no_grad()
    def after_step(self, phase: Phase, progress: float) -> None:
        for mine, its in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            mine.lerp_(its, 1 - MOMENTUM)

    def blocks(self) -> Sequence[nn.Module]:
        return [self.student.backbone.blocks, self.teacher.backbone.blocks]

    def exported(self) -> dict[str, Tensor]:
        """The weights as timm's own checkpoints name them."""
        return self.teacher.backbone.state_dict()


def between_views(
    loss: Callable[[Tensor, Tensor], Tensor], student: Sequence[Tensor], teacher: Sequence[Tensor]
) -> Tensor:
    """The mean of a loss over all pairs of a student's view, the global ones first, and another global view of the
    teacher's, each (B,...)."""
    pairs = [(t, v) for t in range(len(teacher)) for v in range(len(student)) if t != v]
    return torch.stack([loss(student[v], teacher[t]) for t, v in pairs]).mean()


def between_places(
    queries: Sequence[Tensor], keys: Sequence[Tensor], seen: Sequence[View], generator: torch.Generator
) -> Tensor:
    """The contrast of places: of the student's patches in each global view with the teacher's map of the other one; 0
    where no thing is in both.

    Args:
        queries, keys: of each view the projections (B,N,E) of its patches.
    """
    losses = []
    for source, target in ((0, 1), (1, 0)):
        side = math.isqrt(keys[target].shape[1])
        points, there = views.same_places(seen[source], seen[target], side)
        maps = keys[target].transpose(1, 2).unflatten(2, (side, side))
        found = F.grid_sample(maps, (2 * points - 1).unsqueeze(2).to(maps), padding_mode="border", align_corners=False)
        places = there.flatten().nonzero()[:, 0]
        if not len(places):
            return 0 * queries[0].sum()
        places = places[torch.randperm(len(places), generator=generator)[:PLACES]].to(maps.device)
        key = F.normalize(found[..., 0].transpose(1, 2).flatten(0, 1)[places], dim=-1)
        losses.append(contrast(queries[source].flatten(0, 1)[places], key))
    return torch.stack(losses).mean()

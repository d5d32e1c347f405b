"""SAM in miniature: a point on the image, and the mask of what lies there (Kirillov et al., arXiv 2304.02643).

All parts are segment_anything's own. One point is ambiguous, so three masks are proposed; the best one is trained. It
sees images at twice the size of the others' and is told of shapes alone, of things as of what lies around them.

Legend: B images, Q prompts, M = 3 masks a prompt, C embedding width, S image side in pixels, h, w token grid, m = 4 h
side of a mask: as the decoder makes it, half the image's, which is the size of the scenes themselves.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from teachers.pretrain import views
from teachers.pretrain.data import Scenes
from teachers.pretrain.loop import Objective, Phase
from teachers.pretrain.miniatures import MINIATURES
from teachers.sam import image_encoder, run_block

SIDE: int = MINIATURES["sam"].options["img_size"]
PATCH: int = MINIATURES["sam"].options["patch_size"]
GRID = SIDE // PATCH
# The side of the views that a phase sees, at the same enlargement: quarters of an image are much cheaper than wholes.
SIDES = {"quarters": SIDE // 2, "wholes": SIDE}
SCALES = {"quarters": (0.15, 0.4), "wholes": (0.5, 1.0)}  # the share of the scene that a view shows
PROMPTS = 5
SMALLEST = 16  # pixels of a region in a mask that is worth a prompt
FOCAL_WEIGHT, DICE_WEIGHT, IOU_WEIGHT = 20.0, 1.0, 2.0


def build_sam() -> Sam:
    """segment_anything's whole model at miniature size."""
    spec = MINIATURES["sam"]
    width = spec.options["out_chans"]
    return Sam(
        image_encoder(spec.model, **spec.options),
        PromptEncoder(width, (GRID, GRID), (SIDE, SIDE), mask_in_chans=16),
        MaskDecoder(
            transformer_dim=width,
            transformer=TwoWayTransformer(depth=2, embedding_dim=width, num_heads=4, mlp_dim=256),
            num_multimask_outputs=3,
            iou_head_hidden_dim=64,
        ),
    )


class Promptable(Objective):
    """The objective; `sam` is segment_anything's model, which gets exported whole."""

    def __init__(self, scenes: Scenes):
        super().__init__(scenes)
        self.sam = build_sam()
        nn.init.trunc_normal_(self.sam.image_encoder.pos_embed, std=0.02)
        self.to(scenes.images.device)

    def losses(self, phase: Phase, generator: torch.Generator) -> dict[str, Tensor]:
        """Of each prompt's three masks the one with the least focal and Dice loss counts; all predict their IoU."""
        side = SIDES[phase.name]
        index = torch.randint(len(self.scenes), (phase.batch_size,), generator=generator)
        boxes = views.boxes(len(index), SCALES[phase.name], generator)
        flip = views.flips(len(index), generator)
        images = views.crop(self.scenes.images[index], boxes, flip, side) / 255
        images = views.distort(images, generator, strength=0.3, blur=0.2, recolour=0.2)
        numbers = views.crop(self.scenes.regions[index].unsqueeze(1), boxes, flip, side // 2, mode="nearest")[:, 0]
        image_of, points, truths = sample_prompts(numbers.round().long(), PROMPTS, generator)
        corner = torch.randint(GRID - side // PATCH + 1, (2,), generator=generator).tolist()

        with self.autocast():
            embeddings = self.embed(images, corner)
        logits, predicted = self.segment(embeddings.float(), image_of, points, corner)  # (Q,M,m,m), (Q,M)
        truths = truths.unsqueeze(1).expand_as(logits)
        focal_losses, dice_losses = FOCAL_WEIGHT * focal(logits, truths), DICE_WEIGHT * dice(logits, truths)
        best = (focal_losses + dice_losses).argmin(dim=1, keepdim=True)
        with torch.no_grad():
            true = iou(logits > 0, truths > 0.5)
        return {
            "focal": focal_losses.gather(1, best).mean(),
            "dice": dice_losses.gather(1, best).mean(),
            "iou": IOU_WEIGHT * F.mse_loss(predicted, true),
        }

    def embed(self, images: Tensor, corner: Sequence[int] = (0, 0)) -> Tensor:
        """Images (B,3,S,S) in [0,1] -> embeddings (B,C,h,w).

        Args:
            corner: the row and column of the positions' grid where a view smaller than the whole is taken to lie.
        """
        encoder = self.sam.image_encoder
        tokens = encoder.patch_embed((255 * images - self.sam.pixel_mean) / self.sam.pixel_std)  # (B,h,w,D)
        tokens = tokens + cut(encoder.pos_embed.permute(0, 3, 1, 2), corner, tokens.shape[1]).permute(0, 2, 3, 1)
        for block in encoder.blocks:
            tokens = run_block(block, tokens)
        return encoder.neck(tokens.permute(0, 3, 1, 2))

    def segment(
        self, embeddings: Tensor, image_of: Tensor, points: Tensor, corner: Sequence[int] = (0, 0)
    ) -> tuple[Tensor, Tensor]:
        """Of embeddings (B,C,h,w), at prompts on image `image_of` (Q,) and points (Q,2; x, y in pixels of the image)
        -> mask logits (Q,M,m,m), IoU (Q,M)."""
        size = embeddings.shape[-1]
        place = points + PATCH * torch.tensor([corner[1], corner[0]], device=points.device)
        labels = torch.ones(len(points), 1, device=points.device)
        sparse, _ = self.sam.prompt_encoder((place.unsqueeze(1), labels), boxes=None, masks=None)
        without = self.sam.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
        # The decoder takes many prompts of one image and adds the dense embedding to it: with a zero image and the
        # embeddings in the place of the dense one, each prompt has an image of its own.
        return self.sam.mask_decoder(
            image_embeddings=torch.zeros_like(embeddings[:1]),
            image_pe=cut(self.sam.prompt_encoder.get_dense_pe(), corner, size),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=without + embeddings[image_of],
            multimask_output=True,
        )

    def blocks(self) -> Sequence[nn.Module]:
        return []

    def exported(self) -> dict[str, Tensor]:
        """The whole model's weights as segment_anything's checkpoints name them."""
        return self.sam.state_dict()


def cut(maps: Tensor, corner: Sequence[int], size: int) -> Tensor:
    """The square of `size` at `corner` (row, column) of maps (B,C,h,w)."""
    row, column = corner
    return maps[:, :, row : row + size, column : column + size]


def sample_prompts(regions: Tensor, prompts: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw regions of each map (B,m,m), each equally likely whatever its size, and a point in each.

    Returns:
        the image of each prompt (Q,), its point (Q,2) as x, y in pixels of the image, which has twice the map's size,
        its mask (Q,m,m) float32; all where the maps are.
    """
    rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    images, points, masks = [], [], []
    for number, region in enumerate(regions.cpu().numpy()):
        ids, counts = np.unique(region, return_counts=True)
        ids = ids[counts >= SMALLEST]
        for chosen in rng.choice(ids, size=min(prompts, len(ids)), replace=False):
            mask = region == chosen
            y, x = np.divmod(rng.choice(np.flatnonzero(mask)), mask.shape[1])
            images.append(number)
            points.append((2 * x + 0.5, 2 * y + 0.5))  # between the two pixels of the image
            masks.append(mask)
    device = regions.device
    return (
        torch.tensor(images, device=device),
        torch.tensor(points, dtype=torch.float32, device=device),
        torch.from_numpy(np.stack(masks)).to(device).float(),
    )


def focal(logits: Tensor, truths: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss (Lin et al., arXiv 1708.02002) of masks (Q,M,m,m), mean over pixels: (Q,M)."""
    return sigmoid_focal_loss(logits, truths, alpha=-1, gamma=gamma).mean(dim=(-2, -1))


def dice(logits: Tensor, truths: Tensor) -> Tensor:
    """Dice loss (Milletari et al., arXiv 1606.04797) of masks (Q,M,m,m): (Q,M) in 0..1."""
    masks = logits.sigmoid()
    overlap = 2 * (masks * truths).sum(dim=(-2, -1)) + 1
    return 1 - overlap / (masks.sum(dim=(-2, -1)) + truths.sum(dim=(-2, -1)) + 1)


def iou(masks: Tensor, truths: Tensor) -> Tensor:
    """Intersection over union of boolean masks (..., m,m), 0 where both are empty."""
    both = (masks & truths).sum(dim=(-2, -1)).float()
    return both / (masks | truths).sum(dim=(-2, -1)).clamp(min=1)

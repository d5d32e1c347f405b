"""SAM in miniature: a point on the image, and the mask of what lies there (Kirillov et al., arXiv 2304.02643).

All parts are segment_anything's own. One point is ambiguous, so three masks are proposed; the best one is trained.

Legend: B images, P prompts an image, Q = B·P prompts, M = 3 masks a prompt, C embedding width, S image side in pixels.
"""

import numpy as np
import torch
import torch.nn.functional as F
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from teachers.pretrain import data
from teachers.pretrain.loop import Objective
from teachers.pretrain.miniatures import IMAGE_SIZE, MINIATURES
from teachers.sam import image_encoder

PROMPTS = 6
SMALLEST = 24  # pixels of a region that is worth a prompt
FOCAL_WEIGHT, DICE_WEIGHT, IOU_WEIGHT = 20.0, 1.0, 1.0


def build_sam() -> Sam:
    """segment_anything's whole model at miniature size."""
    spec = MINIATURES["sam"]
    width, grid = spec.options["out_chans"], IMAGE_SIZE // spec.options["patch_size"]
    return Sam(
        image_encoder(spec.model, **spec.options),
        PromptEncoder(width, (grid, grid), (IMAGE_SIZE, IMAGE_SIZE), mask_in_chans=16),
        MaskDecoder(
            transformer_dim=width,
            transformer=TwoWayTransformer(depth=2, embedding_dim=width, num_heads=4, mlp_dim=256),
            num_multimask_outputs=3,
            iou_head_hidden_dim=64,
        ),
    )


class Promptable(Objective):
    """The objective; `sam` is segment_anything's model, whose image encoder gets exported."""

    def __init__(self, scenes: data.Scenes, batch_size: int):
        super().__init__(scenes, batch_size)
        self.sam = build_sam()
        for name, parameter in self.sam.image_encoder.named_parameters():
            if name == "pos_embed":
                nn.init.trunc_normal_(parameter, std=0.02)

    def loss(self, progress: float, generator: torch.Generator) -> Tensor:
        """Of each prompt's three masks the one with the least focal and Dice loss counts; all predict their IoU."""
        index = torch.randint(len(self.scenes), (self.batch_size,), generator=generator)
        boxes = data.boxes(len(index), (0.4, 1.0), generator)
        flip = torch.rand(len(index), generator=generator) < 0.5
        images = data.crop(self.scenes.images[index], boxes, flip, IMAGE_SIZE) / 255
        images = data.distort(images, generator, strength=0.3, blur=0.2)
        regions = data.crop(self.scenes.regions[index].unsqueeze(1), boxes, flip, IMAGE_SIZE, mode="nearest")[:, 0]
        image_of, points, truths = sample_prompts(regions.round().long(), PROMPTS, generator)

        with torch.autocast("cpu", torch.bfloat16):
            embeddings = self.embed(images)
        logits, predicted_iou = self.segment(embeddings.float()[image_of], points)  # (Q,M,S,S), (Q,M)
        truths = truths.unsqueeze(1).expand_as(logits)
        losses = FOCAL_WEIGHT * focal(logits, truths) + DICE_WEIGHT * dice(logits, truths)
        with torch.no_grad():
            true_iou = iou(logits > 0, truths > 0.5)
        return losses.min(dim=1).values.mean() + IOU_WEIGHT * F.mse_loss(predicted_iou, true_iou)

    def after_step(self, progress: float) -> None:
        pass

    def embed(self, images: Tensor) -> Tensor:
        """Images (B,3,S,S) in [0,1] -> embeddings (B,C,h,w)."""
        return self.sam.image_encoder(self.sam.preprocess(255 * images))

    def segment(self, embeddings: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """One embedding (Q,C,h,w) and point (Q,2; x, y in pixels) a prompt -> mask logits (Q,M,S,S), IoU (Q,M)."""
        labels = torch.ones(len(points), 1)
        sparse, dense = self.sam.prompt_encoder((points.unsqueeze(1), labels), boxes=None, masks=None)
        # The decoder takes many prompts of one image and adds `dense` to its embedding: with a zero image and the
        # embeddings in `dense`, each prompt has an image of its own.
        masks, predicted_iou = self.sam.mask_decoder(
            image_embeddings=torch.zeros_like(embeddings[:1]),
            image_pe=self.sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense + embeddings,
            multimask_output=True,
        )
        return F.interpolate(masks, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear"), predicted_iou

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Go on from weights that were exported before."""
        self.sam.load_state_dict(weights)

    def exported(self) -> dict[str, Tensor]:
        """The whole model's weights as segment_anything's checkpoints name them."""
        return self.sam.state_dict()


def sample_prompts(regions: Tensor, prompts: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw regions of each map (B,S,S), each equally likely whatever its size, and a point in each.

    Returns:
        the image of each prompt (Q,), its point (Q,2) as x, y in pixels, its mask (Q,S,S) float32.
    """
    rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    images, points, masks = [], [], []
    for number, region in enumerate(regions.numpy()):
        ids, counts = np.unique(region, return_counts=True)
        ids = ids[counts >= SMALLEST]
        for chosen in rng.choice(ids, size=min(prompts, len(ids)), replace=False):
            mask = region == chosen
            where = np.flatnonzero(mask)
            y, x = np.divmod(rng.choice(where), mask.shape[1])
            images.append(number)
            points.append((x, y))
            masks.append(mask)
    return torch.tensor(images), torch.tensor(points, dtype=torch.float32), torch.from_numpy(np.stack(masks)).float()


def focal(logits: Tensor, truths: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss (Lin et al., arXiv 1708.02002) of masks (Q,M,S,S), mean over pixels: (Q,M)."""
    return sigmoid_focal_loss(logits, truths, alpha=-1, gamma=gamma).mean(dim=(-2, -1))


def dice(logits: Tensor, truths: Tensor) -> Tensor:
    """Dice loss (Milletari et al., arXiv 1606.04797) of masks (Q,M,S,S): (Q,M) in 0..1."""
    masks = logits.sigmoid()
    overlap = 2 * (masks * truths).sum(dim=(-2, -1)) + 1
    return 1 - overlap / (masks.sum(dim=(-2, -1)) + truths.sum(dim=(-2, -1)) + 1)


def iou(masks: Tensor, truths: Tensor) -> Tensor:
    """Intersection over union of boolean masks (..., S,S), 0 where both are empty."""
    both = (masks & truths).sum(dim=(-2, -1)).float()
    return both / (masks | truths).sum(dim=(-2, -1)).clamp(min=1)

"""Random views of scenes: crops, colours, and what is hidden of them.

Random numbers are drawn on the CPU from one generator, so that a run on any device sees the same views; the pixels
are worked on where the images are.

Legend: B views, H, W pixels of a scene, S side of a view, h, w its grid of patches, K things of a scene.
"""

import dataclasses
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from teachers.pretrain.data import Scenes

BEYOND = 0.1  # of a thing's box, how far outside of it a place may be and still be told by it
LUMA = torch.tensor([0.299, 0.587, 0.114])


@dataclasses.dataclass(frozen=True)
class View:
    """Views of scenes, one of each, and where they were cut out.

    Attributes:
        pixels: (B,3,S,S).
        boxes: (B,4) as `boxes` has them.
        flip: (B,) whether it is mirrored.
        things: (B,5) the thing in each that its middle is near, as `Scenes.boxes` has them; all 0 where there is none.
    """

    pixels: Tensor
    boxes: Tensor
    flip: Tensor
    things: Tensor

    def to_scene(self, points: Tensor) -> Tensor:
        """Points x, y (B,N,2) of the views, from 0 to 1, as points of their scenes."""
        return self.boxes[:, None, :2] + (self._mirrored(points) - 0.5) * self.boxes[:, None, 2:]

    def from_scene(self, points: Tensor) -> Tensor:
        return self._mirrored((points - self.boxes[:, None, :2]) / self.boxes[:, None, 2:] + 0.5)

    def _mirrored(self, points: Tensor) -> Tensor:
        x = torch.where(self.flip[:, None], 1 - points[..., 0], points[..., 0])
        return torch.stack([x, points[..., 1]], dim=-1)


def same_places(source: View, target: View, side: int) -> tuple[Tensor, Tensor]:
    """Where the patches of one view lie in another one of the same scenes, which may show them from elsewhere.

    What a patch and a point have in common is their place within the box of the thing that both views are of.

    Args:
        side: patches a side.

    Returns:
        points x, y (B,N,2) of the target, and (B,N) whether there is such a place: on the thing, and in the view.
    """
    ticks = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    grid = torch.stack([x, y], dim=-1).view(1, -1, 2).expand(len(source.boxes), -1, -1)
    here, there = ((view.things[:, None, :2], view.things[:, None, 2:4]) for view in (source, target))
    within = (source.to_scene(grid) - here[0]) / (here[1] - here[0]).clamp(min=1e-3)
    points = target.from_scene(there[0] + within * (there[1] - there[0]))
    known = ((source.things[:, 4] > 0) & (target.things[:, 4] > 0))[:, None]
    on_it = ((within > -BEYOND) & (within < 1 + BEYOND)).all(-1)
    return points, known & on_it & ((points > 0) & (points < 1)).all(-1)


def boxes(
    count: int, scale: tuple[float, float], generator: torch.Generator, near: Tensor | None = None, loose: float = 0.5
) -> Tensor:
    """(B,4) random crops as centre x, y and size x, y in parts of the image, of an area within `scale`.

    Args:
        near: (B,2) points x, y that the crops' middles keep within `loose` half sizes of, as far as the image goes.
    """
    area = torch.empty(count).uniform_(*scale, generator=generator)
    ratio = torch.empty(count).uniform_(math.log(3 / 4), math.log(4 / 3), generator=generator).exp()
    size = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1).clamp(max=1)
    place = torch.rand(count, 2, generator=generator)
    if near is None:
        centre = size / 2 + place * (1 - size)
    else:
        centre = torch.clamp(near + loose * (place - 0.5) * size, min=size / 2, max=1 - size / 2)
    return torch.cat([centre, size], dim=1)


def choose_things(boxes: Tensor, generator: torch.Generator) -> Tensor:
    """(B,): one of the things (B,K,5; `Scenes.boxes`) of each scene, the likelier the larger; 0 where there is none."""
    weight = boxes[..., 4].sqrt()
    weight = torch.where(weight.sum(1, keepdim=True) > 0, weight, torch.ones_like(weight))
    return torch.multinomial(weight, 1, generator=generator)[:, 0]


def points_on(boxes: Tensor, generator: torch.Generator, spread: float) -> Tensor:
    """Random points (B,2) about the middles of boxes (B,5), over the share `spread` of their extent; where a box is
    empty, anywhere in the image."""
    place = torch.rand(len(boxes), 2, generator=generator)
    low, high = boxes[:, :2], boxes[:, 2:4]
    inside = (low + high) / 2 + spread * (place - 0.5) * (high - low)
    return torch.where((boxes[:, 4] > 0)[:, None], inside, place)


def crop(images: Tensor, boxes: Tensor, flip: Tensor, side: int, mode: str = "bilinear") -> Tensor:
    """Cut one box (B,4) out of each image (B,C,H,W) and resize it to (B,C,S,S); mirror where `flip` (B,) is true."""
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0] = torch.where(flip, -boxes[:, 2], boxes[:, 2])
    theta[:, 1, 1] = boxes[:, 3]
    theta[:, :, 2] = 2 * boxes[:, :2] - 1
    grid = F.affine_grid(theta.to(images.device), [len(images), 1, side, side], align_corners=False)
    return F.grid_sample(images.float(), grid, mode=mode, padding_mode="border", align_corners=False)


def view(images: Tensor, side: int, scale: tuple[float, float], generator: torch.Generator) -> Tensor:
    """A random crop of each uint8 image (B,3,H,W), mirrored half of the time: (B,3,S,S) in [0,1]."""
    return crop(images, boxes(len(images), scale, generator), flips(len(images), generator), side) / 255


def flips(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator) < 0.5


def distort(
    images: Tensor, generator: torch.Generator, strength: float = 0.4, blur: float = 0.3, recolour: float = 0.0
) -> Tensor:
    """Random brightness, contrast, tint and saturation of images (B,3,S,S) in [0,1]; one in five grey, some blurred.

    `recolour`: the share of images whose hues are turned by any angle, and of which half get their channels permuted,
    so that colours tell nothing of what a thing is.
    """
    count, device = len(images), images.device

    def factor(*shape: int) -> Tensor:
        return (1 + strength * (2 * torch.rand(count, *shape, generator=generator) - 1)).to(device)

    if recolour:
        images = torch.einsum("bij,bjhw->bihw", recolouring(count, recolour, generator).to(device), images).clamp(0, 1)
    images = images * factor(1, 1, 1) * (1 + (factor(3, 1, 1) - 1) / 2)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * factor(1, 1, 1)
    grey = (images * LUMA.to(device).view(1, 3, 1, 1)).sum(1, keepdim=True)
    saturation = factor(1, 1, 1) * (torch.rand(count, 1, 1, 1, generator=generator) > 0.2).to(device)
    images = grey + (images - grey) * saturation
    soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    blurred = (torch.rand(count, 1, 1, 1, generator=generator) < blur).to(device)
    return torch.where(blurred, soft, images).clamp(0, 1)


def recolouring(count: int, share: float, generator: torch.Generator) -> Tensor:
    """(B,3,3) matrices on RGB that keep grey as it is: turns about the grey axis, half of them after a permutation of
    the channels; the identity for all but `share` of them."""
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    axis = torch.full((3, 3), 1 / 3)  # the projection onto grey
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    turns = axis + angle.cos()[:, None, None] * (torch.eye(3) - axis) + angle.sin()[:, None, None] * cross
    order = torch.rand(count, 3, generator=generator).argsort(dim=1)
    permuted = (torch.rand(count, generator=generator) < 0.5)[:, None, None]
    matrices = torch.where(permuted, turns @ torch.eye(3)[order], turns)
    chosen = (torch.rand(count, generator=generator) < share)[:, None, None]
    return torch.where(chosen, matrices, torch.eye(3))


def block_masks(count: int, side: int, share: tuple[float, float], masked: float, generator: torch.Generator) -> Tensor:
    """(B,h,w) bool: of a part `masked` of the views, blocks of patches are hidden that cover a random `share` of them.

    As in BEiT (Bao et al., arXiv 2106.08254): single hidden patches could be guessed from their neighbours.
    """
    rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    masks = np.zeros((count, side, side), bool)
    for number in rng.permutation(count)[: round(masked * count)]:
        wanted = rng.uniform(*share) * side * side
        while masks[number].sum() < wanted:
            area = max(1.0, rng.uniform(0.25, 1.0) * (wanted - masks[number].sum()))
            ratio = np.exp(rng.uniform(-1.0, 1.0))
            h, w = (int(np.clip(round(x), 1, side)) for x in (np.sqrt(area * ratio), np.sqrt(area / ratio)))
            y, x = rng.integers(side - h + 1), rng.integers(side - w + 1)
            masks[number, y : y + h, x : x + w] = True
    return torch.from_numpy(masks)


def whole(images: Tensor, side: int) -> Tensor:
    """uint8 images (B,3,H,W) as squares (B,3,S,S) in [0,1], for evaluation."""
    if images.shape[-2:] == (side, side):
        return images.float() / 255
    return F.interpolate(images.float() / 255, size=(side, side), mode="bilinear", antialias=True).clamp(0, 1)


def either(scenes: Scenes, index: Tensor, generator: torch.Generator) -> Tensor:
    """The images (B,3,H,W) of these scenes, half of them from the scenes again where there is that."""
    again = torch.rand(len(index), generator=generator) < 0.5
    images = scenes.images[index]
    if scenes.again is not None:
        images = torch.where(again.to(images.device).view(-1, 1, 1, 1), scenes.again[0][index], images)
    return images

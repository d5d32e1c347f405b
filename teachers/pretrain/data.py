"""The scenes of a miniature archive in memory, and the random views that training takes of them.

Legend: N scenes, B views, H, W pixels of a scene, S side of a view.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sak.data.reading import read_image, read_map, read_matlab
from sak.errors import UserError

CONTEXT_CLASSES = 459
LUMA = torch.tensor([0.299, 0.587, 0.114])


@dataclasses.dataclass
class Scenes:
    """One split of an archive: PASCAL-Context's layout with captions and instances.

    Attributes:
        images: (N,3,H,W) uint8, RGB.
        captions: one sentence per scene.
        semseg: (N,H,W) uint8, 0 background, 1-20, 255 ignored.
        salient: (N,H,W) bool.
        regions: (N,H,W) uint8: 1.. for instances of things, then one number for each class of stuff around them.
        things: (N,460) bool: which of PASCAL-Context's classes have things that cover at least 1% of the scene.
    """

    images: Tensor
    captions: list[str]
    semseg: Tensor
    salient: Tensor
    regions: Tensor
    things: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def main_class(self) -> Tensor:
        """(N,) int64: the class of the salient object (the most frequent one within it), 0 where there is none."""
        return torch.stack(
            [
                torch.bincount(semseg[salient & (semseg > 0) & (semseg < 255)].long(), minlength=21).argmax()
                for semseg, salient in zip(self.semseg, self.salient, strict=True)
            ]
        )


def load(root: str | Path, split: str) -> Scenes:
    """Read a split of the archive at `root` (train or val).

    Raises:
        UserError: a file of the archive is missing, or the scenes differ in size.
    """
    root = Path(root)
    ids = _text(root / "ImageSets" / "Context" / f"{split}.txt").split()
    captions = json.loads(_text(root / "captions.json"))
    images = [read_image(root / "JPEGImages" / f"{name}.jpg") for name in ids]
    if not images or len({image.shape for image in images}) > 1:
        raise UserError(f"{root}: training needs scenes in the {split} split, all of one size; use a rendered archive.")

    def maps(*folders: str) -> list[np.ndarray]:
        """The PNG of each scene, from the first of the folders that has it."""
        paths = [[root / folder / f"{name}.png" for folder in folders] for name in ids]
        return [read_map(next(filter(Path.is_file, places), places[0])) for places in paths]

    instances = maps("SegmentationObject")
    labels = [read_matlab(root / "pascal-context" / "trainval" / f"{name}.mat", "LabelMap") for name in ids]
    return Scenes(
        images=torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy()),
        captions=[captions[name] for name in ids],
        semseg=torch.from_numpy(np.stack(maps("semseg/VOC12", "semseg/pascal-context"))),
        salient=torch.from_numpy(np.stack(maps("sal_distill")) > 127.5),
        regions=torch.from_numpy(np.stack(list(map(_regions, instances, labels)))),
        things=torch.from_numpy(np.stack(list(map(_things, instances, labels)))),
    )


def join(parts: Sequence[Scenes]) -> Scenes:
    """The scenes of several splits as one."""
    return Scenes(
        images=torch.cat([part.images for part in parts]),
        captions=[caption for part in parts for caption in part.captions],
        semseg=torch.cat([part.semseg for part in parts]),
        salient=torch.cat([part.salient for part in parts]),
        regions=torch.cat([part.regions for part in parts]),
        things=torch.cat([part.things for part in parts]),
    )


def _text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"there is no {path}; --data must be a rendered archive such as mini_context.")
    return path.read_text(encoding="utf-8")


def _regions(instances: np.ndarray, label_map: np.ndarray) -> np.ndarray:
    """Instances keep their numbers; what is not an instance is numbered on by its class in the label map."""
    stuff = np.unique(label_map, return_inverse=True)[1].reshape(label_map.shape)
    return np.where(instances > 0, instances, instances.max() + 1 + stuff).astype(np.uint8)


def _things(instances: np.ndarray, label_map: np.ndarray, share: float = 0.01) -> np.ndarray:
    """(460,) bool: the classes whose instances together cover at least this share of the scene."""
    counts = np.bincount(label_map[instances > 0], minlength=CONTEXT_CLASSES + 1)
    return counts >= share * label_map.size


def boxes(count: int, scale: tuple[float, float], generator: torch.Generator) -> Tensor:
    """(B,4) random crops as centre x, y and size x, y in parts of the image, of an area within `scale`."""
    area = torch.empty(count).uniform_(*scale, generator=generator)
    ratio = torch.empty(count).uniform_(math.log(3 / 4), math.log(4 / 3), generator=generator).exp()
    size = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1).clamp(max=1)
    centre = size / 2 + torch.rand(count, 2, generator=generator) * (1 - size)
    return torch.cat([centre, size], dim=1)


def crop(images: Tensor, boxes: Tensor, flip: Tensor, side: int, mode: str = "bilinear") -> Tensor:
    """Cut one box (B,4) out of each image (B,C,H,W) and resize it to (B,C,S,S); mirror where `flip` (B,) is true."""
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0] = torch.where(flip, -boxes[:, 2], boxes[:, 2])
    theta[:, 1, 1] = boxes[:, 3]
    theta[:, :, 2] = 2 * boxes[:, :2] - 1
    grid = F.affine_grid(theta, [len(images), 1, side, side], align_corners=False)
    return F.grid_sample(images.float(), grid, mode=mode, padding_mode="border", align_corners=False)


def view(images: Tensor, side: int, scale: tuple[float, float], generator: torch.Generator) -> Tensor:
    """A random crop of each uint8 image (B,3,H,W), mirrored half of the time: (B,3,S,S) in [0,1]."""
    flip = torch.rand(len(images), generator=generator) < 0.5
    return crop(images, boxes(len(images), scale, generator), flip, side) / 255


def distort(images: Tensor, generator: torch.Generator, strength: float = 0.4, blur: float = 0.3) -> Tensor:
    """Random brightness, contrast, tint and saturation of images (B,3,S,S) in [0,1]; one in five grey, some blurred."""

    def factor(*shape: int) -> Tensor:
        return 1 + strength * (2 * torch.rand(len(images), *shape, generator=generator) - 1)

    images = images * factor(1, 1, 1) * (1 + (factor(3, 1, 1) - 1) / 2)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * factor(1, 1, 1)
    grey = (images * LUMA.view(1, 3, 1, 1)).sum(1, keepdim=True)
    saturation = factor(1, 1, 1) * (torch.rand(len(images), 1, 1, 1, generator=generator) > 0.2)
    images = grey + (images - grey) * saturation
    soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    blurred = torch.rand(len(images), 1, 1, 1, generator=generator) < blur
    return torch.where(blurred, soft, images).clamp(0, 1)


def whole(images: Tensor, side: int) -> Tensor:
    """uint8 images (B,3,H,W) as squares (B,3,S,S) in [0,1], for evaluation."""
    return F.interpolate(images.float() / 255, size=(side, side), mode="bilinear", antialias=True).clamp(0, 1)

"""The scenes of a rendered archive in memory: with labels to measure on, and unlabelled ones to learn from.

Legend: N scenes, H, W pixels of a scene, R numbers of regions, K things of a scene.
"""

import dataclasses
import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sak.data.images import find_images
from sak.data.mini.annotation import regions
from sak.data.mini.classes import CONTEXT_ID, STUFF
from sak.data.reading import read_image, read_map, read_matlab, read_normals
from sak.data.shards.tar import Member
from sak.errors import UserError

CONTEXT_CLASSES = 459
THINGS = 6  # K: the largest ones of a scene, that views are centred on
SMALLEST_THING = 0.01  # share of the scene


@dataclasses.dataclass
class Scenes:
    """Scenes of one size, on one device.

    Attributes:
        images: (N,3,H,W) uint8, RGB.
        captions: one sentence per scene.
        regions: (N,H,W) uint8: from 1 on, a number for each thing and for each class of stuff around them.
        classes: (N,R) int64: the PASCAL-Context class of each number, 0 where there is none.
        again: images and regions of the same scenes in other colours and another light, from another place.
    """

    images: Tensor
    captions: list[str]
    regions: Tensor
    classes: Tensor
    again: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> "Scenes":
        again = self.again and (self.again[0].to(device), self.again[1].to(device))
        moved = {name: getattr(self, name).to(device) for name in ("images", "regions", "classes")}
        return dataclasses.replace(self, **moved, again=again)

    def things(self) -> Tensor:
        """(N,460) bool: which classes have things that together cover at least 1% of the scene."""
        shown = torch.zeros(len(self), CONTEXT_CLASSES + 1)
        for number in range(1, self.classes.shape[1]):
            share = (self.regions == number).flatten(1).float().mean(1).cpu()
            shown.scatter_add_(1, self.classes[:, number : number + 1].cpu(), share[:, None])
        shown[:, [0, *(CONTEXT_ID[name] for name in STUFF)]] = 0
        return shown >= SMALLEST_THING

    def boxes(self) -> Tensor:
        """(V,N,K,5) of the largest things: left, top, right and bottom as shares of the image, and their area's share.

        Of V views, the scenes and, if there are, the scenes again; in these a thing has the same place in the list.
        Unused places and things out of sight are 0 throughout.
        """
        views = [self.regions, *([self.again[1]] if self.again else [])]
        stuff = {CONTEXT_ID[name] for name in STUFF}
        found = np.zeros((len(views), len(self), THINGS, 5), np.float32)
        for scene, classes in enumerate(self.classes.tolist()):
            maps = [view[scene].cpu().numpy() for view in views]
            areas = np.bincount(maps[0].ravel(), minlength=len(classes)) / maps[0].size
            numbers = [n for n, name in enumerate(classes) if name and name not in stuff and areas[n] >= SMALLEST_THING]
            for place, number in enumerate(sorted(numbers, key=lambda n: -areas[n])[:THINGS]):
                for view, numbered in enumerate(maps):
                    found[view, scene, place] = _box(numbered == number)
        return torch.from_numpy(found)


def _box(mask: np.ndarray) -> tuple[float, ...]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return (0.0,) * 5
    height, width = mask.shape
    box = (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)
    return (*box, float(mask.mean()))


@dataclasses.dataclass
class Labelled(Scenes):
    """Scenes with the labels that a network is measured by.

    Attributes:
        semseg: (N,H,W) uint8, 0 background, 1-20, 255 ignored.
        salient: (N,H,W) bool.
        label_map: (N,H,W) int16, PASCAL-Context's classes, between which boundaries run.
        normals: (N,3,H,W) float32 unit vectors.
    """

    semseg: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))
    salient: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))
    label_map: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))
    normals: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))

    def first(self, count: int) -> "Labelled":
        """The first scenes alone."""
        fields = [field.name for field in dataclasses.fields(self) if field.name != "again"]
        return dataclasses.replace(self, again=None, **{name: getattr(self, name)[:count] for name in fields})

    def main_class(self) -> Tensor:
        """(N,) int64: the class of the salient object (the most frequent one within it), 0 where there is none."""
        return torch.stack(
            [
                torch.bincount(semseg[salient & (semseg > 0) & (semseg < 255)].long(), minlength=21).argmax()
                for semseg, salient in zip(self.semseg, self.salient, strict=True)
            ]
        )


def load(root: str | Path, split: str) -> Labelled:
    """Read a split of the archive at `root` (train or val).

    Raises:
        UserError: a file of the archive is missing, or the scenes differ in size.
    """
    root = Path(root)
    ids = _text(root / "ImageSets" / "Context" / f"{split}.txt").split()
    captions = json.loads(_text(root / "captions.json"))
    images = [read_image(root / "JPEGImages" / f"{name}.jpg") for name in ids]

    def maps(*folders: str) -> list[np.ndarray]:
        """The PNG of each scene, from the first of the folders that has it."""
        paths = [[root / folder / f"{name}.png" for folder in folders] for name in ids]
        return [read_map(next(filter(Path.is_file, places), places[0])) for places in paths]

    labels = [read_matlab(root / "pascal-context" / "trainval" / f"{name}.mat", "LabelMap") for name in ids]
    numbered = [regions(*pair) for pair in zip(maps("SegmentationObject"), labels, strict=True)]
    normals = [read_normals(root / "normals_distill" / f"{name}.png") for name in ids]
    return Labelled(
        images=_stacked(images, root),
        captions=[captions[name] for name in ids],
        regions=torch.from_numpy(np.stack([numbers for numbers, _ in numbered])),
        classes=_padded([classes for _, classes in numbered]),
        semseg=torch.from_numpy(np.stack(maps("semseg/VOC12", "semseg/pascal-context"))),
        salient=torch.from_numpy(np.stack(maps("sal_distill")) > 127.5),
        label_map=torch.from_numpy(np.stack(labels).astype(np.int16)),
        normals=torch.from_numpy(np.stack(normals)).permute(0, 3, 1, 2).contiguous(),
    )


def load_unlabelled(root: str | Path) -> Scenes:
    """Read the unlabelled scenes of the archive at `root`, and these again where it has them.

    Raises:
        UserError: it has none.
    """
    folder = Path(root) / "unlabelled"
    entries = json.loads(_text(folder / "scenes.json"))

    def pair(suffix: str) -> tuple[Tensor, Tensor]:
        images = list(map(_decoded, find_images(folder / f"images{suffix}.tar", keep=False)))
        numbers = list(map(_decoded, find_images(folder / f"regions{suffix}.tar", keep=False)))
        return _stacked(images, folder), torch.from_numpy(np.stack(numbers))

    images, numbers = pair("")
    return Scenes(
        images=images,
        captions=[entry["caption"] for entry in entries.values()],
        regions=numbers,
        classes=_padded([entry["classes"] for entry in entries.values()]),
        again=pair("_again") if (folder / "images_again.tar").is_file() else None,
    )


def _decoded(file: Path | Member) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(file.read_bytes())))


def _text(path: Path) -> str:
    if not path.is_file():
        raise UserError(
            f"there is no {path}; --data must be a rendered archive such as mini_context, with unlabelled scenes."
        )
    return path.read_text(encoding="utf-8")


def _stacked(images: list[np.ndarray], root: Path) -> Tensor:
    if not images or len({image.shape for image in images}) > 1:
        raise UserError(f"{root}: training needs scenes, all of one size; use a rendered archive.")
    stacked = torch.empty(len(images), 3, *images[0].shape[:2], dtype=torch.uint8)
    for number, image in enumerate(images):  # one by one, for all at once would take the memory twice
        stacked[number] = torch.tensor(image).permute(2, 0, 1)
    return stacked


def _padded(classes: Iterable[list[int]]) -> Tensor:
    rows = list(classes)
    table = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    for row, numbers in zip(table, rows, strict=True):
        row[: len(numbers)] = torch.tensor(numbers)
    return table

"""Images without labels, for the distillation stage."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from sak.data.names import Names
from sak.data.reading import naming
from sak.data.tar import Member, expand, open_archives
from sak.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
RATIO = (3 / 4, 4 / 3)  # width / height of a crop


class Files(Sequence[Path]):
    """The files of these names in a folder."""

    def __init__(self, folder: str | os.PathLike, names: Names):
        self.folder, self.names = Path(folder), names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Path:  # type: ignore[override]  # no slices
        return self.folder / self.names[index]


def find_images(source: str | os.PathLike[str], keep: bool = True) -> Sequence[Path | Member]:
    """All images of a folder (however deep, sorted by path), or of tar archives, in their own order.

    Args:
        source: a folder of images, a tar of them, a folder of tars (sorted by path), or a pattern of tars such as
            `shards/imagenet-{000000..000146}.tar`.
        keep: keep the list of an archive's members in the user's cache directory.

    Raises:
        UserError: there are none, or archives are missing or damaged.
    """
    if not os.path.isdir(source):
        if not str(source).endswith(".tar"):
            raise UserError(f"{source} is not a folder and no tar: set it to what holds the images.")
        return open_archives(expand(os.fspath(source)), SUFFIXES, keep)
    # os.walk with links: data sets are often folders of links to folders.
    files = [os.path.join(place, name) for place, _, names in os.walk(source, followlinks=True) for name in names]
    names = sorted((os.path.relpath(file, source) for file in files), key=lambda name: name.split(os.sep))
    images = [name for name in names if os.path.splitext(name)[1].lower() in SUFFIXES]
    archives = [Path(source, name) for name in names if name.lower().endswith(".tar")]
    if images and archives:
        raise UserError(
            f"{source} holds images ({images[0]}) and tar archives ({archives[0].name}): set it to one or the other."
        )
    if archives:
        return open_archives(archives, SUFFIXES, keep)
    if not images:
        raise UserError(
            f"{source} holds no image ({', '.join(sorted(SUFFIXES))}) and no tar: set it to the folder that does."
        )
    return Files(source, Names.of(images))


def random_window(
    size: tuple[int, int], rng: np.random.Generator, scale: tuple[float, float], tries: int = 10
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a crop with a share in `scale` of the area and an aspect ratio in `RATIO`.

    The random resized crop of Inception (Szegedy et al., CVPR 2015). `size` is (width, height). Where none of `tries`
    crops fits into the image, the largest central one of an allowed ratio is taken.
    """
    width, height = size
    for _ in range(tries):
        area = width * height * rng.uniform(*scale)
        ratio = np.exp(rng.uniform(*np.log(RATIO)))
        crop_width, crop_height = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(rng.integers(width - crop_width + 1))
            top = int(rng.integers(height - crop_height + 1))
            return left, top, left + crop_width, top + crop_height
    crop_width = min(width, max(1, round(height * RATIO[1])))
    crop_height = min(height, max(1, round(width / RATIO[0])))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


class Images(Dataset):
    """Random resized crops, mirrored in half of the cases: {"image": float32 (3, H, W) in [0, 1], "name": str}.

    Args:
        files: images in any mode that Pillow reads: paths, or members of tar archives.
        image_size: (H, W) of the items.
        seed: of the crops, which are a function of (seed, epoch, index) alone: see `set_epoch`.
        crop_scale: least and largest share of the image's area that a crop covers.

    Raises:
        UserError: without files, and when an item is read whose file is damaged.
    """

    def __init__(
        self,
        files: Sequence[Path | Member],
        image_size: tuple[int, int],
        seed: int = 0,
        crop_scale: Sequence[float] = (0.08, 1.0),
    ):
        if not files:
            raise UserError("There are no images to distil from: name a folder or an archive that holds some.")
        self.image_files = files
        self.image_size = tuple(image_size)
        self.seed = seed
        least, largest = crop_scale
        self.crop_scale = (least, largest)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the crops of an epoch. Call it before the loader's workers start: they hold a copy."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.image_files)

    def __getitem__(self, index: int) -> dict:
        index = range(len(self))[index]  # refuses what is out of range, counts negative ones from the end
        rng = np.random.default_rng([self.seed, self.epoch, index])
        height, width = self.image_size
        path = self.image_files[index]
        with naming(path), Image.open(io.BytesIO(path.read_bytes())) as file:
            image = file.convert("RGB")
        window = random_window(image.size, rng, self.crop_scale)
        image = image.resize((width, height), Image.Resampling.BICUBIC, box=window)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image).transpose(2, 0, 1).copy())
        return {"image": pixels.float() / 255, "name": path.stem}

"""Images without labels, for the distillation stage."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from torch.utils.data import Dataset

from sak.data.discovery import expand, find_files, spelt_out, suffix_of, told
from sak.data.reading import SUFFIXES, opened, read_image, shown_size, to_rgb
from sak.data.shards import remote
from sak.data.shards.names import Names
from sak.data.shards.tar import Member, Members, open_archives
from sak.data.transforms import finish
from sak.errors import UserError, printable

RATIO = (3 / 4, 4 / 3)  # width / height of a crop
Box = tuple[int, int, int, int]  # left, top, right, bottom


class Files(Sequence[Path]):
    """The files of these names in a folder; `left_out` counts what else is there."""

    def __init__(self, folder: str | os.PathLike, names: Names, left_out: Counter[str]):
        self.folder, self.names, self.left_out = Path(folder), names, left_out

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Path:  # type: ignore[override]  # no slices
        return self.folder / self.names[index]


def find_images(source: str | os.PathLike[str], keep: bool = True) -> Files | Members:
    """All images of a folder (however deep, sorted by path), or of tar archives, in their own order.

    Args:
        source: a folder of images, a tar of them, a folder of tars (sorted by path), or a pattern of tars such as
            `shards/imagenet-{000000..000146}.tar` (`sak.data.discovery.expand`), also of addresses: `https://…`, `s3://…`.
        keep: keep the list of an archive's members in the user's cache directory.

    Raises:
        UserError: there are none, or archives are missing or corrupt.
    """
    place = os.path.expanduser(source)
    if remote.is_remote(place):
        return open_archives(_addresses(place), SUFFIXES, keep)
    if place.startswith("pipe:"):
        raise UserError(f"{place} is no place: name archives, where they lie or by an address as https:// or s3://.")
    if not os.path.isdir(place):
        archives = expand(place)
        if archives == [Path(place)] and suffix_of(place) != ".tar":
            raise UserError(f"{place} is not a folder and no tar: set it to what holds the images.")
        if strangers := [path for path in archives if suffix_of(path.name) != ".tar"]:
            raise UserError(f"{place} stands for {strangers[0]} too, which is no tar: name tars alone, as in *.tar.")
        return open_archives(archives, SUFFIXES, keep)
    names, left_out = find_files(place, {*SUFFIXES, ".tar"})
    images = [name for name in names if suffix_of(name) in SUFFIXES]
    archives = [Path(place, name) for name in names if suffix_of(name) == ".tar"]
    if images and archives:
        raise UserError(
            f"{place} holds images ({images[0]}) and tar archives ({archives[0].name}): set it to one or the other."
        )
    if archives:
        members = open_archives(archives, SUFFIXES, keep)
        members.left_out += left_out
        return members
    if not images:
        raise UserError(
            f"{place} holds no image ({', '.join(sorted(SUFFIXES))}) and no tar{told(left_out, before='; ')}: "
            "set it to the folder that does."
        )
    return Files(place, Names.of(images), left_out)


def _addresses(pattern: str) -> list[str]:
    """The tars that a pattern of addresses stands for, `{000..146}` spelt out.

    Raises:
        UserError: one is no tar, or nothing here can speak to it.
    """
    addresses = spelt_out(pattern)
    if strangers := [address for address in addresses if suffix_of(address.partition("?")[0]) != ".tar"]:
        raise UserError(f"{strangers[0]} is no tar: name tars behind addresses, as in a-{{000..146}}.tar.")
    remote.check(addresses[0])
    return addresses


def random_window(size: tuple[int, int], rng: np.random.Generator, scale: tuple[float, float], tries: int = 10) -> Box:
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


def read_window(
    source: Path | Member, choose: Callable[[tuple[int, int]], Box], size: tuple[int, int], upright: bool
) -> torch.Tensor:
    """uint8 (3, H, W): of an image, the window that `choose` names for its (width, height), resized to `size` (H, W).

    Cut out, then bicubic with antialiasing, as Pillow's to within a level. A JPEG whose window is twice as large as
    that, or more, is decoded at the fraction of its size (1/2, 1/4, 1/8) that still suffices.

    Raises:
        FaultyFile: as `read_image`.
    """
    box = None
    with opened(source) as file:
        if isinstance(file, JpegImageFile):  # of others the size is certain once they are decoded
            width, height = shown_size(file) if upright else file.size
            box = choose((width, height))
            fraction = min((box[2] - box[0]) // size[1], (box[3] - box[1]) // size[0])
            if fraction > 1:
                file.draft(None, (file.width // fraction, file.height // fraction))
        pixels = to_rgb(file, source, upright)
    if box is None:
        height, width = pixels.shape[:2]
        box = choose((width, height))
    left, top, right, bottom = box
    rows, columns = pixels.shape[0] / height, pixels.shape[1] / width  # 1 if all was decoded
    window = pixels[round(top * rows) : round(bottom * rows), round(left * columns) : round(right * columns)]
    # torch resizes bytes that lie channels last four times as fast as Pillow.
    maps = torch.from_numpy(window.copy()).permute(2, 0, 1)[None]
    return F.interpolate(maps, size, mode="bicubic", antialias=True)[0]


class Images(Dataset):
    """Random resized crops, mirrored in half of the cases: {"image": float32 (3, H, W) in [0, 1], "name": str}.

    Args:
        files: images that `read_image` reads: paths, or members of tar archives.
        image_size: (H, W) of the items.
        seed: of the crops, which are a function of (seed, epoch, index) alone: see `set_epoch`.
        crop_scale: least and largest share of the image's area that a crop covers.
        upright: turn pictures as their EXIF orientation says; not where they are a labelled archive's.

    Raises:
        UserError: without files, and when an item is read whose file is corrupt.
    """

    def __init__(
        self,
        files: Sequence[Path | Member],
        image_size: tuple[int, int],
        seed: int = 0,
        crop_scale: Sequence[float] = (0.08, 1.0),
        upright: bool = True,
    ):
        if not files:
            raise UserError("There are no images to distil from: name a folder or an archive that holds some.")
        self.image_files = files
        self.crop_files: list[Path] = []  # no labels decide what is cropped
        height, width = image_size
        self.image_size = (height, width)
        self.seed = seed
        least, largest = crop_scale
        self.crop_scale = (least, largest)
        self.upright = upright
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the crops of an epoch. Call it before the loader's workers start: they hold a copy."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.image_files)

    def __getitem__(self, index: int) -> dict:
        return finish(self.packed(index))

    def packed(self, index: int) -> dict:
        """The item before `finish`."""
        index = range(len(self))[index]  # refuses what is out of range, counts negative ones from the end
        rng = np.random.default_rng([self.seed, self.epoch, index])
        path = self.image_files[index]
        pixels = read_window(
            path, lambda whole: random_window(whole, rng, self.crop_scale), self.image_size, self.upright
        )
        if rng.random() < 0.5:
            pixels = pixels.flip(-1)
        return {"pixels": pixels.contiguous(), "name": printable(path.stem)}


class CentreCrops(Dataset):
    """Whole pictures, as an evaluation without labels sees them.

    Items are {"image": float32 (3, H, W) in [0, 1], "name": the picture's path, "size": (H, W)}.

    The picture is resized until it covers (H, W), and what stands over on both sides is left out.

    Args:
        files, image_size: as of `Images`.
    """

    def __init__(self, files: Sequence[Path | Member], image_size: tuple[int, int]):
        self.image_files, self.image_size = files, image_size

    def set_epoch(self, epoch: int) -> None:
        """Every epoch sees the same."""

    def __len__(self) -> int:
        return len(self.image_files)

    def __getitem__(self, index: int) -> dict:
        return finish(self.packed(index))

    def packed(self, index: int) -> dict:
        """The item before `finish`."""
        path = self.image_files[index]
        image = ImageOps.fit(
            Image.fromarray(read_image(path, upright=True)), self.image_size[::-1], Image.Resampling.BICUBIC
        )
        pixels = torch.from_numpy(np.array(image).transpose(2, 0, 1).copy())
        return {"pixels": pixels, "name": printable(str(path)), "size": self.image_size}

"""Images of one's own, for a student's routers: files without labels."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from sak.data.discovery import find_files, told
from sak.data.reading import SUFFIXES, CorruptFile, read_image
from sak.data.reading.pixels import opened
from sak.data.transforms import finish, packed_for_evaluation
from sak.errors import UserError, printable


class GivenImages(Dataset):
    """Items as the validation's, without labels: {"image": float32 (3, H, W) in [0, 1], "name": str, "size": (h, w)}.

    An image larger than the canvas is shrunk until it fits, and padded with the mean colour.

    Args:
        places: files, or folders of images.
        image_size: the canvas (H, W).

    Raises:
        UserError: there is no such file, it is no image, or a folder holds none.
    """

    def __init__(self, places: Sequence[str], image_size: Sequence[int]):
        self.image_size = tuple(image_size)
        self.image_files: list[Path] = []
        for place in map(Path, places):
            if place.is_dir():
                self.image_files += map(_checked, _below(place))
            elif place.is_file():
                self.image_files.append(_checked(place))
            else:
                raise UserError(f"{place} is no file" if place.exists() else f"there is no image {place}")
        self.names = [printable(path.stem) for path in self.image_files]

    def __len__(self) -> int:
        return len(self.image_files)

    def __getitem__(self, index: int) -> dict:
        return finish(self.packed(index))

    def packed(self, index: int) -> dict:
        """The item before `finish`: see `sak.data.loading.packed`."""
        path = self.image_files[index]
        try:
            pixels = read_image(path, upright=True)
        except CorruptFile as error:
            raise UserError(f"{path} cannot be read as an image: give another one, or leave it out") from error
        return {**packed_for_evaluation({"image": pixels}, self.image_size, {}), "name": self.names[index]}


def _below(folder: Path) -> list[Path]:
    names, left_out = find_files(folder, SUFFIXES)
    if not names:
        others = told(left_out, before="; ")
        raise UserError(f"{folder} holds no image ({', '.join(sorted(SUFFIXES))}){others}")
    if left_out:
        tqdm.write(f"{folder}: {len(names):,} images; {told(left_out)}")
    return [folder / name for name in names]


def _checked(path: Path) -> Path:
    """Told before anything is computed."""
    try:
        with opened(path) as image:
            image.verify()
    except CorruptFile as error:
        raise UserError(f"{path} is no image that can be read: give image files, or folders of them") from error
    return path


def main_classes(semseg: torch.Tensor, background: int | None) -> torch.Tensor:
    """Label maps (B, H, W), 255 = ignored -> the class (B,) with the most pixels.

    Args:
        background: a class that counts only where there is no other.
    """
    counts = torch.stack([torch.bincount(label.flatten(), minlength=256)[:255] for label in semseg])
    if background is not None:
        others = counts.clone()
        others[:, background] = 0
        counts = torch.where(others.sum(1, keepdim=True) > 0, others, counts)
    return counts.argmax(1)

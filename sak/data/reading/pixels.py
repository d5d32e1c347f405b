"""Pictures: files of any mode and depth that Pillow decodes, as 8-bit RGB.

What black and white are in a file must be certain. A file that does not say so is refused with one sentence.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, PngImagePlugin, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from sak.data.reading.faults import CorruptFile, FaultyFile, naming

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}  # in any case; what else lies in a folder is no picture
# The modes that Pillow turns into RGB without anything to decide; others have rules of their own below, or are refused.
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV"}
SENSOR = 4095  # the largest value of 12 bits, which cameras and depth sensors store in 16
CONVERT = "convert it to 8 bits a channel"

# A long text beside the pixels, which editors write, is no reason to refuse them. There is still a limit.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY


class Bytes(Protocol):
    """What a picture can be read from beside a path: a member of a tar archive."""

    def read_bytes(self) -> bytes: ...


Source = str | Path | Bytes


def read_image(source: Source, upright: bool = False) -> np.ndarray:
    """uint8 (H, W, 3), RGB; what is transparent shows white.

    16-bit channels are scaled from 0..65535 and floating-point ones from 0..1. Colour profiles are left alone.

    Args:
        upright: turn the picture as its EXIF orientation says. Not for labelled archives, whose labels fit the pixels
            as they are stored.

    Raises:
        FaultyFile: the file cannot be decoded, or its range cannot be told for certain: 16 bits of which 12 or fewer
            are used, integers of 32 bits, floats beyond 0..1.
    """
    with opened(source) as file:
        return to_rgb(file, source, upright)


def to_rgb(file: Image.Image, source: object, upright: bool = False) -> np.ndarray:
    """The same of an image that Pillow has opened, or made; ``source`` is what it is called in an error."""
    # Of each channel; after decoding nothing says so any more. BGR;16 is a bitmap with 16 bits a pixel.
    sixteen_bits = re.search("(?<!BGR);16", repr(getattr(file, "tile", "")))
    mode, kind = file.mode, getattr(file, "format", None)
    image = _turned(file) if upright else file
    if mode == "F":
        return _repeated(_of_floats(np.asarray(image), source))
    if mode.startswith("I;16") or (mode == "I" and kind == "PNG"):  # older versions of Pillow call it so
        return _repeated(_of_16_bits(np.asarray(image), source))
    if mode not in MODES:
        what = "32-bit integers, whose white cannot be told" if mode == "I" else f"the mode {mode}, which is not read"
        raise FaultyFile(f"{source} has {what}: {CONVERT}.", kind="pixels")
    pixels = np.asarray((image if is_opaque(image) else _on_white(image)).convert("RGB"))
    if sixteen_bits:  # Pillow has kept the upper 8
        _check_range(256 * int(pixels.max()) + 255, source)
    return pixels


def stored_size(path: Source) -> tuple[int, int]:
    """(H, W) of an image as it is stored, without decoding it."""
    with opened(path) as image:
        return image.height, image.width


def shown_size(file: JpegImageFile) -> tuple[int, int]:
    """(width, height) of an opened JPEG, not decoded yet, once it is turned as its EXIF orientation says."""
    try:
        on_its_side = file.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    except Exception:  # see `_turned`
        on_its_side = False
    return (file.height, file.width) if on_its_side else file.size


@contextlib.contextmanager
def opened(source: Source) -> Iterator[ImageFile.ImageFile]:
    """An image file that is not decoded yet. Whatever goes wrong with it, in the block too, is said of the file."""
    with naming(source), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about large pictures and odd metadata
        try:
            file = source if isinstance(source, str | Path) else io.BytesIO(source.read_bytes())
            with Image.open(file) as image:
                yield image
        except Image.DecompressionBombError as error:
            most = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
            raise FaultyFile(
                f"{source} has more pixels than the {most} million that are read at most: shrink it, or cut it up.",
                kind="pixels",
            ) from error
        except UnidentifiedImageError as error:
            raise CorruptFile(
                f"{source} is corrupt, or an image of a kind that is not read: restore it, or store it as an 8-bit "
                "JPEG or PNG."
            ) from error


def _turned(image: Image.Image) -> Image.Image:
    image.load()  # so that corruption is told as such
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # metadata that makes no sense says nothing about the orientation
        return image


def is_opaque(image: Image.Image) -> bool:
    """Whether no pixel of the image is transparent."""
    return not image.has_transparency_data or image.convert("RGBA").getchannel("A").getextrema() == (255, 255)


def _on_white(image: Image.Image) -> Image.Image:
    paper = Image.new("RGBA", image.size, "white")
    paper.alpha_composite(image.convert("RGBA"))
    return paper


def _of_floats(values: np.ndarray, source: object) -> np.ndarray:
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise FaultyFile(
            f"{source} has floating-point values from {values.min():g} to {values.max():g}, where black is 0 and white "
            f"1: {CONVERT}.",
            kind="pixels",
        )
    return np.rint(255 * values).astype(np.uint8)


def _of_16_bits(values: np.ndarray, source: object) -> np.ndarray:
    _check_range(int(values.max()), source)
    return ((values.astype(np.uint32) * 255 + 65535 // 2) // 65535).astype(np.uint8)


def _check_range(largest: int, source: object) -> None:
    if 0 < largest <= SENSOR:
        raise FaultyFile(
            f"{source} has 16 bits a channel but no value above {SENSOR}: whether white is 65535, 4095 or 255 "
            f"cannot be told; {CONVERT}.",
            kind="pixels",
        )


def _repeated(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)

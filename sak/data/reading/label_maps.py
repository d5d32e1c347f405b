"""Labels that are stored as images or arrays: (H, W) of numbers whose meaning must be certain.

The stored numbers count: of a palette the indices, however deep the file is. What is told in levels (saliency, edges)
may be stored in several encodings, and the rule that tells them apart is `read_levels`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.format import MAGIC_PREFIX
from PIL.ImageFile import ImageFile

from sak.data.reading.faults import FaultyFile, naming
from sak.data.reading.pixels import SENSOR, Source, is_opaque, opened
from sak.labels import IGNORE

MOST_SHOWN = 12  # numbers in a sentence
LARGEST_STORED, UNKNOWN = 65535, -1  # of a number that stands for a class; what others stand for
WHITE = {"1": 1, "L;2": 3, "L;4": 15}  # the largest number of modes and raw modes with fewer than 8 bits


class Levels(NamedTuple):
    """
    Attributes:
        values: float32 (H, W) in 0..1.
        encoding: how they are stored: "0 and 1", "0..255", "0..65535" or "floats".
    """

    values: np.ndarray
    encoding: str


def read_map(path: Source) -> np.ndarray:
    """(H, W): the stored numbers of a one-channel image; of a palette image the indices, not the colours."""
    with opened(path) as image:
        return _stored(image, path)[0]


class Coding(NamedTuple):
    """What the stored numbers of a class map mean.

    Attributes:
        values: the number of each class, in their order.
        ignored: numbers of pixels that are to be ignored.
    """

    values: tuple[int, ...]
    ignored: tuple[int, ...] = (IGNORE,)


def read_coded_classes(path: Source, coding: Coding) -> np.ndarray:
    """uint8 (H, W): classes in the order of the coding's values, and 255 for ignored pixels."""
    stored = _read_class_numbers(path)
    meaning = np.full(LARGEST_STORED + 1, UNKNOWN, np.int16)
    meaning[list(coding.ignored)] = IGNORE
    meaning[list(coding.values)] = range(len(coding.values))
    numbers = stored.astype(np.int32)
    labels = meaning[numbers.clip(0, LARGEST_STORED)]
    strays = stored[(labels == UNKNOWN) | (numbers != stored) | (numbers < 0) | (numbers > LARGEST_STORED)]
    if strays.size:
        raise FaultyFile(
            f"{path} holds {_some(np.unique(strays))}, but the {len(coding.values)} classes are stored as "
            f"{_some(coding.values)}, and {_some(coding.ignored)} is ignored: correct the classes or what is ignored, "
            "or the file.",
            kind="range",
        )
    return labels.astype(np.uint8)


def _some(numbers: Sequence | np.ndarray) -> str:
    """The first of them, and how many more there are."""
    text = ", ".join(f"{number:g}" for number in numbers[:MOST_SHOWN]) or "nothing"
    return text + (f" and {len(numbers) - MOST_SHOWN} more" if len(numbers) > MOST_SHOWN else "")


def read_classes(path: Source, num_classes: int) -> np.ndarray:
    """uint8 (H, W): a map of the classes 0..num_classes-1, and 255 for ignored pixels."""
    classes = _read_class_numbers(path)
    known = ((classes >= 0) & (classes < num_classes)) | (classes == IGNORE)
    strays = classes[~known | (np.trunc(classes) != classes)]
    if strays.size:
        raise FaultyFile(
            f"{path} holds the value {strays[0]}, but there are {num_classes} classes (0..{num_classes - 1}, "
            f"{IGNORE} = ignore): it belongs to another data set, or is corrupt.",
            kind="range",
        )
    return classes.astype(np.uint8)


def _read_class_numbers(path: Source) -> np.ndarray:
    """(H, W): the numbers that stand for classes, as they are stored."""
    with opened(path) as image:
        if image.format == "JPEG":
            raise FaultyFile(f"{path} is a JPEG, which changes the classes near borders: restore it from the archive.")
        classes, white = _stored(image, path)
    if white in (WHITE["L;2"], WHITE["L;4"]):
        what = "has fewer than 8 bits, in which a number may stand for itself or for a share of 255"
        raise FaultyFile(f"{path} {what}: store the classes in 8 bits.")
    return classes


def read_levels(path: Source) -> Levels:
    """A map that is told in levels from nothing to all, in whichever of these encodings it is stored:

    - nothing but 0 and 1: as it is;
    - 8 bits: 0..255. Nothing but 0, 1 and 255 is refused: 1 may be all, beside ignored pixels, or next to nothing;
    - more bits: 0..65535. Where no value is above 4095 it is refused, as the range may be another;
    - floating point: 0..1;
    - a palette: its colours where all are greys, else its indices;
    - nothing but 0 and 255: whatever the file's depth.

    Raises:
        FaultyFile: it is none of these.
    """

    def unclear(what: str) -> FaultyFile:
        return FaultyFile(f"{path} holds {what}: store it in 8 bits as 0..255.", kind="levels")

    with opened(path) as image:
        values, white = _shown(image, path)
    least, largest = values.min(), values.max()
    if values.dtype.kind == "f":
        if not (np.isfinite(values).all() and least >= 0 and largest <= 1):
            raise unclear(f"floating-point numbers from {least:g} to {largest:g}, where 0..1 are expected")
        return Levels(values.astype(np.float32), "floats")
    if least >= 0 and largest <= 1:
        return Levels(values.astype(np.float32), "0 and 1")
    if _holds_only(values, 0, 255):
        white = 255
    elif largest == 255 and _holds_only(values, 0, 1, 255):
        raise unclear("nothing but 0, 1 and 255, where 1 may be all or next to nothing")
    if least < 0 or largest > white or (white > 255 and largest <= SENSOR):
        raise unclear(f"numbers from {least} to {largest}, whose range cannot be told")
    return Levels(values.astype(np.float32) / np.float32(white), f"0..{white}" if white > 255 else "0..255")


def _holds_only(values: np.ndarray, *numbers: int) -> bool:
    return bool(np.logical_or.reduce([values == number for number in numbers]).all())


def read_saliency(path: Source) -> np.ndarray:
    """uint8 (H, W): 1 where the stored level is above one half, as in the published loader."""
    return (read_levels(path).values > 0.5).astype(np.uint8)


def read_edges(path: Source) -> np.ndarray:
    """uint8 (H, W): 1 on boundaries, of a map that holds nothing but its lowest and its highest level.

    Raises:
        FaultyFile: there are levels between.
    """
    levels = read_levels(path).values
    between = (levels > 0) & (levels < 1)
    if between.any():
        value = read_map(path)[between].flat[0]
        raise FaultyFile(
            f"{path} holds the value {value}, and {between.sum()} pixels in all that are neither nothing nor a "
            "boundary: store 255 on boundaries, 0 elsewhere, and never resize the maps.",
            kind="edges",
        )
    return levels.astype(np.uint8)


def read_normals(path: Source) -> np.ndarray:
    """float32 (H, W, 3): unit vectors up to the rounding of 8 bits, stored as colours 255 (n + 1) / 2."""
    with opened(path) as image:
        if image.mode not in ("RGB", "RGBX", "RGBA", "P") or not is_opaque(image):
            raise FaultyFile(
                f"{path} has the mode {image.mode} where three channels (RGB) are expected: it is no map of normals, "
                "or was converted; restore it from the archive.",
                kind="normals",
            )
        colours = np.asarray(image.convert("RGB"))
    return np.float32(2.0) * colours.astype(np.float32) / np.float32(255.0) - np.float32(1.0)


def read_depth(path: str | Path) -> np.ndarray:
    """float32 (H, W, 1): metres, from an array of them; 255 where it holds 0, as nothing was measured.

    Raises:
        FaultyFile: it holds something else, or depths that are negative or not finite.
    """
    stored = _array(path)
    if stored.dtype.kind not in "fiu":
        raise FaultyFile(f"{path} holds {stored.dtype} where numbers are expected: it is not a depth map.")
    if stored.ndim != 2:
        raise FaultyFile(f"{path} has shape {stored.shape} where (height, width) is expected: it is not a depth map.")
    with np.errstate(over="ignore"):
        depth = stored.astype(np.float32)
    wrong = ~np.isfinite(depth) | (depth < 0)
    if wrong.any():
        raise FaultyFile(
            f"{path} holds {stored[wrong][0]}, and {wrong.sum()} pixels that are negative or not finite: store 0 where "
            "nothing was measured.",
            kind="depth values",
        )
    depth[depth == 0] = IGNORE
    return depth[..., None]


def check_label(label: np.ndarray, size: tuple[int, int], image: Source, paths: Sequence[Source]) -> np.ndarray:
    """The label, if it is what that of any task must be: of its image's size, and of finite numbers.

    Raises:
        FaultyFile: it is not.
    """
    if label.shape[:2] != size:
        raise FaultyFile(
            f"{paths[0]} is {label.shape[:2]} pixels (height, width), but its image {image} is {size}: "
            "restore both from the archive.",
            kind="size",
        )
    if label.dtype.kind == "f" and not np.isfinite(label).all():
        raise FaultyFile(f"{paths[0]} holds numbers that are not finite: restore it from the archive.")
    return label


def ignore_far(normals: np.ndarray, tolerance: float) -> np.ndarray:
    """Normals (H, W, 3), 255 where their length is farther than this from 1."""
    far = np.abs(np.linalg.norm(normals, axis=-1, keepdims=True) - 1) > tolerance
    return np.where(far, np.float32(IGNORE), normals)


def read_scaled(path: Source, scale: float | None, empty: float | None) -> np.ndarray:
    """float32 (H, W, C): numbers of an array (.npy) or of a one-channel picture, divided by the scale.

    Args:
        scale: so many stored numbers make one unit; a picture needs one, as its numbers are whole.
        empty: the number that says that nothing was measured, which becomes 255, as what is not finite does.

    Raises:
        FaultyFile: it holds something else, or a picture comes without a scale.
    """
    if isinstance(path, str | Path) and Path(path).suffix.lower() == ".npy":
        stored = _array(path)
        if stored.dtype.kind not in "fiu" or stored.ndim not in (2, 3):
            raise FaultyFile(
                f"{path} holds {stored.dtype} of shape {stored.shape} where numbers of shape (height, width) or "
                "(height, width, channels) are expected."
            )
    elif scale is None:
        raise FaultyFile(
            f"{path} is a picture, whose whole numbers need a scale: set the task's scale in data.labels, as "
            "{scale: 1000} for millimetres of depth."
        )
    else:
        stored = read_map(path)
    with np.errstate(over="ignore"):
        numbers = stored.astype(np.float32) / np.float32(scale or 1)
    numbers[~np.isfinite(numbers) | (stored == empty)] = IGNORE
    return numbers if numbers.ndim == 3 else numbers[..., None]


def _array(path: str | Path) -> np.ndarray:
    """A file of NumPy's. Whatever else it may be is not passed on to NumPy, which would advise to run it as code."""
    with naming(path), open(path, "rb") as file:
        if file.read(len(MAGIC_PREFIX)) != MAGIC_PREFIX:
            raise FaultyFile(f"{path} is no array of NumPy's (.npy): restore it from the archive.")
        file.seek(0)
        try:
            return np.load(file, allow_pickle=False)
        except ValueError as error:
            if "Object arrays" in str(error):
                raise FaultyFile(f"{path} holds objects where numbers are expected: restore it.") from None
            raise


def _stored(image: ImageFile, path: Source) -> tuple[np.ndarray, int]:
    """The stored numbers (H, W), and the largest that the file's depth allows; 0 where that is not known."""
    raw = next((raw for raw in WHITE if f"'{raw}'" in repr(image.tile)), image.mode)
    values = np.asarray(image)
    if values.ndim != 2:
        raise FaultyFile(f"{path} has {values.shape[-1]} channels where one is expected: it is not a label map.")
    if values.dtype == bool:
        values = values.astype(np.uint8)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype.kind == "f":
        return values, 1
    if raw == "P" or (raw == "I" and image.format != "PNG"):  # which older versions of Pillow call so for 16 bits
        return values, 0
    white = WHITE.get(raw, 255 if values.dtype == np.uint8 else 65535)
    # Pillow spreads 2 and 4 bits of grey over 0..255.
    return (values // (255 // white) if 1 < white < 255 else values), white


def _shown(image: ImageFile, path: Source) -> tuple[np.ndarray, int]:
    """As `_stored`; of a grey palette the levels that it shows, as the order of its entries means nothing."""
    palette = np.reshape(image.getpalette() or [], (-1, 3)) if image.mode == "P" else None
    values, white = _stored(image, path)
    if palette is not None and len(palette) > values.max():
        used = np.unique(values)
        colours = palette[used]
        if (colours == colours[:, :1]).all() and len(np.unique(colours[:, 0])) == len(used):
            return palette[:, 0].astype(np.uint8)[values], 255
    return values, white

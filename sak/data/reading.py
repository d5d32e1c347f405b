"""Reading the files of an archive: whatever is wrong with one, the message names it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from sak.errors import UserError
from sak.labels import IGNORE


class FaultyFile(UserError):
    """A file of a data set that cannot be used as what it should be; the others of the set may be fine."""


class DamagedFile(FaultyFile):
    """A file that is not there, or cannot be decoded."""


class OutOfRange(FaultyFile):
    """A label map that holds a value which its task does not have."""


@contextlib.contextmanager
def naming(path: object) -> Iterator[None]:
    """Turn any failure to decode `path` into a DamagedFile that names it.

    Decoders raise what they happen to meet in damaged bytes (OSError, SyntaxError, struct.error, zlib.error, ...),
    so no list of types would be complete.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise DamagedFile(f"{path} does not exist: restore it from the archive.") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        raise DamagedFile(f"{path} is damaged and cannot be read ({reason}): restore it from the archive.") from error


def read_image(path: str | Path) -> np.ndarray:
    """uint8 (H, W, 3), RGB, whatever the file's mode."""
    with naming(path), Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def read_map(path: str | Path) -> np.ndarray:
    """(H, W): the values of a one-channel image; of a palette image the indices, not the colours."""
    with naming(path), Image.open(path) as image:
        values = np.asarray(image)
    if values.ndim != 2:
        raise FaultyFile(f"{path} has {values.shape[-1]} channels where one is expected: it is not a label map.")
    return values.astype(np.uint8) if values.dtype == bool else values


def read_classes(path: str | Path, num_classes: int) -> np.ndarray:
    """uint8 (H, W): a map of the classes 0..num_classes-1, and 255 for ignored pixels."""
    classes = read_map(path)
    strays = classes[(classes < 0) | ((classes >= num_classes) & (classes != 255))]
    if strays.size:
        raise OutOfRange(
            f"{path} holds the value {strays[0]}, but there are {num_classes} classes (0..{num_classes - 1}, "
            f"{IGNORE} = ignore): it belongs to another data set, or is damaged."
        )
    return classes.astype(np.uint8)


def read_normals(path: str | Path) -> np.ndarray:
    """float32 (H, W, 3): unit vectors up to the rounding of 8 bits, stored as colours 255 (n + 1) / 2."""
    return np.float32(2.0) * read_image(path).astype(np.float32) / np.float32(255.0) - np.float32(1.0)


def read_matlab(path: str | Path, variable: str) -> np.ndarray:
    """One variable of a MATLAB file, structures as NumPy records."""
    with naming(path):
        content = scipy.io.loadmat(str(path), variable_names=[variable])
    if variable not in content:
        raise FaultyFile(f"{path} holds no variable {variable}: it belongs to another data set, or is damaged.")
    return content[variable]

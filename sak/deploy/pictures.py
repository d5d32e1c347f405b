"""What a student is shown: pictures from files, videos, Pillow and NumPy, as RGB pixels."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from sak.data.discovery import expand, find_files, suffix_of, told
from sak.data.reading import SUFFIXES, FaultyFile, read_image
from sak.data.reading.pixels import CONVERT, stored_size, to_rgb
from sak.errors import UserError, printable

# In folders; a file that is named is read whatever it is called.
PICTURES = SUFFIXES | {".tif", ".tiff", ".gif", ".jp2", ".ppm", ".pgm", ".tga", ".avif", ".hdr"}
VIDEOS = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"}

Picture = str | os.PathLike | Image.Image | np.ndarray


def pixels_of(picture: Picture) -> np.ndarray:
    """(H, W, 3), RGB: uint8, or float32 where an array of floats was given.

    Args:
        picture: a file, upright as its EXIF orientation says; a Pillow image of any mode; or an array (H, W) or
            (H, W, 1, 3 or 4), uint8 or floats in [0, 1], the fourth channel of which is opacity, over white.

    Raises:
        UserError: it cannot be read, or is none of these.
    """
    if isinstance(picture, str | os.PathLike):
        return _read(Path(picture))
    if isinstance(picture, Image.Image):
        return to_rgb(picture, "the image", upright=True)
    if isinstance(picture, np.ndarray):
        return _of_array(picture)
    raise UserError(
        f"a picture must be a path, a Pillow image or a NumPy array (H, W, 3), but it is a {type(picture).__name__}"
    )


def _read(path: Path) -> np.ndarray:
    try:
        return read_image(path, upright=True)
    except FaultyFile as error:
        if not isinstance(error.__cause__, UnidentifiedImageError):
            raise
        with contextlib.suppress(cv2.error):  # a kind that OpenCV may know
            read = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if read is not None:
                return cv2.cvtColor(read, cv2.COLOR_BGR2RGB)
        raise


def _of_array(array: np.ndarray) -> np.ndarray:
    shape = array.shape
    channels = 1 if array.ndim == 2 else shape[-1] if array.ndim == 3 else 0
    if channels not in (1, 3, 4) or 0 in shape:
        raise UserError(f"an array must be (H, W, 3), or (H, W) if grey, but its shape is {shape}")
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"an array must hold uint8, or floats in [0, 1], but it holds {array.dtype}: {CONVERT}")
    if array.dtype != np.uint8:
        array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise UserError("an array holds values that are not finite: a picture's are in [0, 1]")
    array = array.reshape(*shape[:2], channels)
    if channels == 4:
        white = 255 if array.dtype == np.uint8 else 1
        opacity = array[..., 3:].astype(np.float32) / white
        over = array[..., :3] * opacity + white * (1 - opacity)
        array = np.rint(over).astype(np.uint8) if array.dtype == np.uint8 else over
    return np.repeat(array, 3, axis=2) if channels == 1 else np.ascontiguousarray(array)


# --- files and videos -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shot:
    """A picture that has a name of its own: a file, or a frame of a video.

    Attributes:
        name: its path below the results, without suffix.
        size: (H, W) as it is stored; (0, 0) of a file that cannot be opened.
        frame: its number in the video, counted from 0; None of a picture.
    """

    path: Path
    name: str
    size: tuple[int, int]
    frame: int | None = None


def find_shots(places: list[str], every: int = 1) -> tuple[list[Shot], list[str]]:
    """All pictures that these places stand for, those of one size together, and what is left out of folders.

    Args:
        places: pictures, videos, folders however deep, and patterns as `photos/*.jpg`.
        every: of a video, each so-manieth frame.

    Raises:
        UserError: a place stands for nothing.
    """
    found: list[tuple[Path, str]] = []
    notes = []
    for place in places:
        for path in expand(os.path.expanduser(place)):
            if path.is_dir():
                names, left_out = find_files(path, PICTURES | VIDEOS)
                if not names:
                    raise UserError(f"{path} holds no picture and no video{told(left_out, before='; ')}")
                if left_out:
                    notes.append(f"{path}: {len(names):,} pictures and videos; {told(left_out)}")
                found += [(path / name, name) for name in names]
            elif path.is_file():
                found.append((path, path.name))
            elif path.exists():
                raise UserError(f"{path} is no file: give pictures, videos or folders of them")
            else:
                raise UserError(f"there is no picture {path}")
    shots = []
    for path, name in _with_names_of_their_own(found):
        if suffix_of(path.name) in VIDEOS:
            shots += _frames(path, name, every)
        else:
            size = (0, 0)
            with contextlib.suppress(UserError):
                size = stored_size(path)
            shots.append(Shot(path, name, size))
    return sorted(shots, key=lambda shot: shot.size if shot.frame is None else (0, 0)), notes


def _with_names_of_their_own(found: list[tuple[Path, str]]) -> Iterator[tuple[Path, str]]:
    """The suffix goes, but where two pictures differ in nothing else.

    Raises:
        UserError: they do not even differ in that.
    """
    stems = [printable(os.path.splitext(name)[0]) for _, name in found]
    alike = {stem for stem, count in Counter(stems).items() if count > 1}
    taken: dict[str, Path] = {}
    for (path, name), stem in zip(found, stems, strict=True):
        own = printable(name).replace(".", "_") if stem in alike else stem
        if own in taken and taken[own] == path:
            continue  # named twice
        if own in taken:
            raise UserError(f"{taken[own]} and {path} would have results of one name ({own}): give them to two calls")
        taken[own] = path
        yield path, own


def _frames(path: Path, name: str, every: int) -> list[Shot]:
    with _video(path) as video:
        count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        size = (int(video.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(video.get(cv2.CAP_PROP_FRAME_WIDTH)))
    return [Shot(path, f"{name}/{number:06d}", size, number) for number in range(0, count, every)]


@contextlib.contextmanager
def _video(path: Path) -> Iterator[cv2.VideoCapture]:
    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened() or not video.get(cv2.CAP_PROP_FRAME_COUNT) >= 1:
            raise UserError(f"{path} cannot be read as a video: see whether it plays, or give its frames as pictures")
        yield video
    finally:
        video.release()


def read_shots(shots: list[Shot]) -> Iterator[tuple[Shot, np.ndarray | UserError]]:
    """The pixels of each, or why there are none. Frames of one video are decoded in one go."""
    start = 0
    while start < len(shots):
        stop = start + 1
        if shots[start].frame is None:
            try:
                yield shots[start], pixels_of(shots[start].path)
            except UserError as error:
                yield shots[start], error
        else:
            while stop < len(shots) and shots[stop].frame is not None and shots[stop].path == shots[start].path:
                stop += 1
            yield from _read_frames(shots[start:stop])
        start = stop


def _read_frames(shots: list[Shot]) -> Iterator[tuple[Shot, np.ndarray | UserError]]:
    at = 0  # the frame that comes next
    with _video(shots[0].path) as video:
        for shot in shots:
            while at < (shot.frame or 0) and video.grab():
                at += 1
            whole, frame = video.read()
            at += 1
            if not whole:
                told = f"{shot.path} ends, or is corrupt, before frame {shot.frame} of those that its header promises"
                yield shot, UserError(told)
                return
            yield shot, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

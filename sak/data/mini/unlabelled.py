"""Scenes without labels, for the distillation and for the pretraining of teachers: images in a tar, hardly more.

`images.tar` holds ID.jpg, `regions.tar` ID.png (`annotation.regions`), `scenes.json` for each id its caption and the
PASCAL-Context class of each region. With positives, `images_again.tar` and `regions_again.tar` hold the same scenes in
other colours and another light, seen from a little to the side; things keep their numbers, stuff need not.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from sak.data.mini.annotation import regions
from sak.data.mini.drawing import draw_twice
from sak.files import write_json

QUALITY = 95


def file_names(again: bool) -> list[str]:
    tars = ["images", "regions"] + ["images_again", "regions_again"] * again
    return [*(f"{name}.tar" for name in tars), "scenes.json"]


def save_jpeg(image: np.ndarray, target: Path | io.BytesIO) -> None:
    """Without the usual halving of the colours' resolution, which would blur just the boundaries of things."""
    Image.fromarray(image).save(target, format="JPEG", quality=QUALITY, subsampling=0)


def encoded(image: np.ndarray) -> bytes:
    """An RGB image as JPEG, a map as PNG."""
    buffer = io.BytesIO()
    if image.ndim == 3:
        save_jpeg(image, buffer)
    else:
        Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def render_job(job: tuple[int, int, int, bool]) -> tuple[str, dict[str, bytes], dict]:
    """One scene: (seed, index, size, again) -> its id, {tar: its file's content}, its entry in `scenes.json`."""
    seed, index, size, again = job
    _, rendering, sentence, other = draw_twice(seed, "unlabelled", index, size, again)
    numbers, classes = regions(rendering.instances, rendering.context)
    files = {"images": encoded(rendering.image), "regions": encoded(numbers)}
    if other is not None:
        files |= {
            "images_again": encoded(other.image),
            "regions_again": encoded(regions(other.instances, other.context)[0]),
        }
    return f"2012_{index + 1:06d}", files, {"caption": sentence, "classes": classes}


def write(folder: Path, scenes: Iterable[tuple[str, dict[str, bytes], dict]], again: bool) -> None:
    """Write what `render_job` gives, in its order."""
    folder.mkdir()
    entries = {}
    with contextlib.ExitStack() as stack:
        tars = {
            Path(name).stem: stack.enter_context(tarfile.open(folder / name, "w", format=tarfile.USTAR_FORMAT))
            for name in file_names(again)
            if name.endswith(".tar")
        }
        for identity, files, entry in scenes:
            entries[identity] = entry
            for tar, content in files.items():
                member = tarfile.TarInfo(f"{identity}.{'jpg' if tar.startswith('images') else 'png'}")
                member.size = len(content)  # its time stays 0, so that equal scenes make equal files
                tars[tar].addfile(member, io.BytesIO(content))
    write_json(folder / "scenes.json", entries)

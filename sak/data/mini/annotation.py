"""A rendering's labels as files of the release hold them: MATLAB structures of parts, 8-bit normals, borders as 255."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import scipy.io

from sak.data.mini.classes import PART_NAMES
from sak.data.mini.render import Rendering
from sak.data.mini.scene import Scene
from sak.data.pascal_part import PERSON
from sak.labels import IGNORE

HEADER = b"MATLAB 5.0 MAT-file, mini_context".ljust(116)  # scipy's would hold the time of day


def save_mat(path: Path, content: dict) -> None:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, content, do_compression=True)
    data = buffer.getvalue()
    path.write_bytes(HEADER + data[len(HEADER) :])


def struct_array(records: list[tuple], fields: tuple[str, ...]) -> np.ndarray:
    """A 1 x n MATLAB struct array; 0 x 0 where there is nothing, as in PASCAL-Part."""
    if not records:
        return np.zeros((0, 0))
    array = np.empty((1, len(records)), dtype=[(name, object) for name in fields])
    for i, record in enumerate(records):
        array[0, i] = record
    return array


def part_annotation(name: str, scene: Scene, rendering: Rendering) -> np.ndarray:
    """PASCAL-Part's `anno`: each visible VOC object with its mask, and a person's visible parts with theirs."""
    objects = []
    for i, thing in enumerate(scene.things):
        mask = rendering.instances == i + 1
        if thing.voc_id == 0 or not mask.any():
            continue
        present = np.unique(rendering.part_names[mask]) if thing.voc_id == PERSON else ()
        parts = [(PART_NAMES[k - 1], (mask & (rendering.part_names == k)).astype(np.uint8)) for k in present if k]
        objects.append((thing.voc, thing.voc_id, mask.astype(np.uint8), struct_array(parts, ("part_name", "mask"))))
    return struct_array([(name, struct_array(objects, ("class", "class_ind", "mask", "parts")))], ("imname", "objects"))


def encode_normals(normals: np.ndarray) -> np.ndarray:
    """uint8 v with 2 v / 255 - 1 = normal."""
    return np.clip(np.round((normals + 1) * 127.5), 0, 255).astype(np.uint8)


def encode_classes(rendering: Rendering) -> np.ndarray:
    """uint8 (H, W): VOC's classes, 255 on the borders of objects as VOC has it."""
    return np.where(rendering.borders, np.uint8(IGNORE), rendering.semseg)


def regions(instances: np.ndarray, context: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Everything in the picture, each with a number.

    Args:
        instances: (H, W), 0 for stuff, else the number of a thing.
        context: (H, W), PASCAL-Context's classes.

    Returns:
        uint8 (H, W): instances keep their numbers, from 1 on, and each class of stuff around them has the next one;
        the class of each number, 0 for numbers that the picture does not show.
    """
    stuff = instances == 0
    kinds = np.unique(context[stuff])
    first = int(instances.max()) + 1
    numbers = np.where(stuff, first + np.searchsorted(kinds, context), instances).astype(np.uint8)
    classes = np.zeros(first + len(kinds), int)
    classes[numbers.ravel()] = context.ravel()
    return numbers, classes.tolist()

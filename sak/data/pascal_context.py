"""PASCAL-Context in the multi-task release (ASTMT, Maninis et al., CVPR 2019, arXiv 1904.08918).

Semantic labels and parts come from PASCAL VOC 2012 and PASCAL-Part, boundaries from PASCAL-Context's 459 classes;
saliency and normals were distilled from networks of that time.
"""

import functools
import json
from pathlib import Path

import cv2
import numpy as np
from skimage.morphology import thin

from sak.data.archive import Archive
from sak.data.description import Description
from sak.data.pascal_part import PART_LABELS, PERSON, VOC
from sak.data.reading import (
    FaultyFile,
    naming,
    read_classes,
    read_label_map,
    read_matlab,
    read_normals,
    read_saliency,
)
from sak.labels import IGNORE
from sak.tasks import TaskDescription
from sak.tasks.human_parts import PARTS


class PascalContext(Archive):
    """4,998 training and 5,105 validation images; see `Archive` for arguments, items and errors."""

    DESCRIPTION = Description(
        "PASCAL-Context",
        tasks={
            "semseg": TaskDescription.of_classes(VOC, background=0),
            "human_parts": TaskDescription.of_classes(PARTS, background=0, ignore_empty=True),
            "saliency": TaskDescription(channels=2),
            "normals": TaskDescription(channels=3),
            "edge": TaskDescription(channels=1, max_dist=0.0075),
        },
        splits={"train": 4998, "val": 5105},
        benchmark="pascal_context",
    )
    TASKS = tuple(DESCRIPTION.tasks)
    LISTS = "ImageSets/Context/{}.txt"
    IMAGES = "JPEGImages/{}.jpg"
    FILES = {
        "semseg": (("semseg/VOC12/{}.png", "semseg/pascal-context/{}.png"),),
        "human_parts": (("human_parts/{}.mat",),),
        "saliency": (("sal_distill/{}.png",),),
        "normals": (
            ("normals_distill/{}.png",),
            ("pascal-context/trainval/{}.mat",),
            ("json/nyu_classes.json",),
            ("json/context_classes.json",),
        ),
        "edge": (("pascal-context/trainval/{}.mat",),),
    }

    @staticmethod
    def read(task: str, size: tuple[int, int], *paths: Path) -> np.ndarray:
        match task:
            case "semseg":
                return read_classes(paths[0], num_classes=21)
            case "human_parts":
                return read_human_parts(paths[0], size)
            case "saliency":
                return read_saliency(*paths)
            case "normals":
                normals, classes, nyu, context = paths
                return read_valid_normals(normals, classes, normal_classes(nyu, context))
            case "edge":
                return PascalContext.draw_edges(read_label_map(*paths))
        raise AssertionError(task)

    @staticmethod
    def read_boundaries(path: Path) -> np.ndarray:
        return read_label_map(path)

    @staticmethod
    def draw_edges(classes: np.ndarray) -> np.ndarray:
        """float32 (H, W, 1): 1 where the Laplacian of the label map (H, W) is not zero, thinned."""
        laplacian = cv2.Laplacian(classes.astype(np.float64), cv2.CV_64F)
        return thin(np.abs(laplacian) > 0).astype(np.float32)[..., None]


@functools.cache
def normal_classes(nyu_path: Path, context_path: Path) -> np.ndarray:
    """The ids of LabelMap on which the distilled normals can be trusted: classes that NYUD, their source, has."""
    nyu, context = read_json(nyu_path), read_json(context_path)
    # The names are a list, or the keys of a table.
    if not isinstance(nyu, list | dict) or not all(isinstance(name, str) for name in nyu):
        raise FaultyFile(f"{nyu_path} is no list of names: restore it from the archive.")
    if not isinstance(context, dict) or not all(type(label) is int for label in context.values()):
        raise FaultyFile(f"{context_path} is no table of names and numbers: restore it from the archive.")
    chosen = set(nyu) - {"unknown"} | {"tvmonitor"}
    return np.array([label for name, label in context.items() if name in chosen])


def read_json(path: Path) -> object:
    with naming(path):
        return json.loads(path.read_text(encoding="utf-8-sig"))


def read_human_parts(path: Path, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W): labels 1..6 of the parts of every person, painted in the file's order; 0 elsewhere."""
    annotation = read_matlab(path, "anno")
    target = np.zeros(size, dtype=np.uint8)
    try:
        people = [thing for thing in annotation["objects"][0, 0].ravel() if thing["class_ind"].item() == PERSON]
        # An empty array where a person's parts were not annotated.
        parts = [(str(part["part_name"].item()), part["mask"]) for person in people for part in person["parts"].ravel()]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:  # of structures of another kind
        raise FaultyFile(f"{path}: anno is not built as PASCAL-Part's: restore it from the archive.") from error
    for name, mask in parts:
        if name not in PART_LABELS:
            raise FaultyFile(f"{path} has a person's part {name!r}, which PASCAL-Part has not: restore it.")
        if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "biuf" or not np.isfinite(mask).all():
            raise FaultyFile(f"{path}: the mask of {name} is no array of numbers: restore it from the archive.")
        if mask.shape != size:
            raise FaultyFile(
                f"{path} holds a mask of {mask.shape} pixels (height, width), but its image is {size}: restore both "
                "from the archive.",
                kind="size",
            )
        target[mask > 0] = PART_LABELS[name]
    return target


def read_valid_normals(normals_path: Path, classes_path: Path, valid_classes: np.ndarray) -> np.ndarray:
    """float32 (H, W, 3): the stored normals where LabelMap is one of `valid_classes`, elsewhere 255."""
    normals = read_normals(normals_path)
    classes = read_label_map(classes_path)
    if classes.shape != normals.shape[:2]:
        raise FaultyFile(
            f"{normals_path} is {normals.shape[:2]} pixels (height, width), but {classes_path} is {classes.shape}: "
            "restore both from the archive.",
            kind="size",
        )
    normals[~np.isin(classes, valid_classes)] = IGNORE
    return normals

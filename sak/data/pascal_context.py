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
from sak.data.pascal_part import PART_LABELS, PERSON
from sak.data.reading import FaultyFile, naming, read_classes, read_map, read_matlab, read_normals
from sak.labels import IGNORE


class PascalContext(Archive):
    """4,998 training and 5,105 validation images; see `Archive` for arguments, items and errors."""

    TITLE = "PASCAL-Context"
    TASKS = ("semseg", "human_parts", "saliency", "normals", "edge")
    LISTS = "ImageSets/Context/{}.txt"
    IMAGES = "JPEGImages/{}.jpg"
    RELEASE = {"train": 4998, "val": 5105}
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
                return (read_map(*paths) > 127.5).astype(np.uint8)
            case "normals":
                normals, classes, nyu, context = paths
                return read_valid_normals(normals, classes, normal_classes(nyu, context))
            case "edge":
                return draw_edges(read_matlab(paths[0], "LabelMap"))
        raise AssertionError(task)

    @staticmethod
    def read_boundaries(path: Path) -> np.ndarray:
        return read_matlab(path, "LabelMap")


@functools.cache
def normal_classes(nyu_path: Path, context_path: Path) -> np.ndarray:
    """The ids of LabelMap on which the distilled normals can be trusted: classes that NYUD, their source, has."""
    nyu = set(read_json(nyu_path)) - {"unknown"} | {"tvmonitor"}
    return np.array([label for name, label in read_json(context_path).items() if name in nyu])


def read_json(path: Path):
    with naming(path):
        return json.loads(path.read_text(encoding="utf-8"))


def read_human_parts(path: Path, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W): labels 1..6 of the parts of every person, painted in the file's order; 0 elsewhere."""
    annotation = read_matlab(path, "anno")
    with naming(path):
        target = np.zeros(size, dtype=np.uint8)
        people = [thing for thing in annotation["objects"][0, 0].ravel() if thing["class_ind"].item() == PERSON]
        for person in people:
            for part in person["parts"].ravel():  # an empty array where the person's parts were not annotated
                target[part["mask"] > 0] = PART_LABELS[str(part["part_name"].item())]
    return target


def read_valid_normals(normals_path: Path, classes_path: Path, valid_classes: np.ndarray) -> np.ndarray:
    """float32 (H, W, 3): the stored normals where LabelMap is one of `valid_classes`, elsewhere 255."""
    normals = read_normals(normals_path)
    classes = read_matlab(classes_path, "LabelMap")
    if classes.shape != normals.shape[:2]:
        raise FaultyFile(
            f"{normals_path} is {normals.shape[:2]} pixels (height, width), but {classes_path} is {classes.shape}: "
            "restore both from the archive."
        )
    normals[~np.isin(classes, valid_classes)] = IGNORE
    return normals


def draw_edges(classes: np.ndarray) -> np.ndarray:
    """float32 (H, W, 1): 1 where the Laplacian of the label map (H, W) is not zero, thinned: the training's edges."""
    laplacian = cv2.Laplacian(classes.astype(np.float64), cv2.CV_64F)
    return thin(np.abs(laplacian) > 0).astype(np.float32)[..., None]

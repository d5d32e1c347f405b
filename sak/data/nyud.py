"""NYUD-v2 in the multi-task release (Silberman et al., ECCV 2012; tasks as in ASTMT, arXiv 1904.08918)."""

from pathlib import Path

import numpy as np

from sak.data.archive import Archive
from sak.data.description import Description
from sak.data.reading import read_classes, read_depth, read_edges, read_normals
from sak.labels import IGNORE
from sak.tasks import TaskDescription

CLASSES = (
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture"),
    *("counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes"),
    *("ceiling", "books", "refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard"),
    *("person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag", "other structure", "other furniture"),
    "other prop",
)


class NYUDv2(Archive):
    """795 training and 654 validation images of rooms; see `Archive` for arguments, items and errors."""

    DESCRIPTION = Description(
        "NYUD-v2",
        tasks={
            "semseg": TaskDescription.of_classes(CLASSES),
            "normals": TaskDescription(channels=3),
            "edge": TaskDescription(channels=1, max_dist=0.011),
            "depth": TaskDescription(channels=1),
        },
        splits={"train": 795, "val": 654},
        benchmark="nyud",
    )
    TASKS = tuple(DESCRIPTION.tasks)
    LISTS = "gt_sets/{}.txt"
    IMAGES = "images/{}.png"
    FILES = {
        "semseg": (("segmentation/{}.png",),),
        "normals": (("normals/{}.png",),),
        "edge": (("edge/{}.png",),),
        "depth": (("depth/{}.npy",),),
    }
    CANVAS = (448, 576)

    @staticmethod
    def read(task: str, size: tuple[int, int], *paths: Path) -> np.ndarray:
        match task:
            case "semseg":  # stored as 0 = unlabelled, 1..40; 0 - 1 wraps around to 255, the ignored value
                classes = read_classes(paths[0], num_classes=41)
                return np.where(classes == IGNORE, np.uint8(IGNORE), classes - np.uint8(1))
            case "normals":
                return read_normals(*paths)
            case "edge":
                return read_edges(*paths).astype(np.float32)[..., None]
            case "depth":
                return read_depth(*paths)
        raise AssertionError(task)

    @staticmethod
    def read_boundaries(path: Path) -> np.ndarray:
        return read_edges(path)

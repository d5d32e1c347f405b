"""NYUD-v2 in the multi-task release (Silberman et al., ECCV 2012; tasks as in ASTMT, arXiv 1904.08918)."""

from pathlib import Path

import numpy as np

from sak.data.archive import Archive
from sak.data.reading import FaultyFile, naming, read_classes, read_map, read_normals
from sak.labels import IGNORE


class NYUDv2(Archive):
    """795 training and 654 validation images of rooms; see `Archive` for arguments, items and errors."""

    TITLE = "NYUD-v2"
    TASKS = ("semseg", "normals", "edge", "depth")
    LISTS = "gt_sets/{}.txt"
    IMAGES = "images/{}.png"
    RELEASE = {"train": 795, "val": 654}
    FILES = {
        "semseg": (("segmentation/{}.png",),),
        "normals": (("normals/{}.png",),),
        "edge": (("edge/{}.png",),),
        "depth": (("depth/{}.npy",),),
    }

    def __init__(self, root, split="train", tasks=None, image_size=(448, 576), augment=False, seed=0):
        super().__init__(root, split, tasks, image_size, augment, seed)

    @staticmethod
    def read(task: str, size: tuple[int, int], *paths: Path) -> np.ndarray:
        match task:
            case "semseg":  # stored as 0 = unlabelled, 1..40; 0 - 1 wraps around to 255, the ignored value
                classes = read_classes(paths[0], num_classes=41)
                return np.where(classes == IGNORE, np.uint8(IGNORE), classes - np.uint8(1))
            case "normals":
                return read_normals(*paths)
            case "edge":
                return (read_map(*paths).astype(np.float32) / np.float32(255))[..., None]
            case "depth":
                return read_depth(*paths)
        raise AssertionError(task)

    @staticmethod
    def read_boundaries(path: Path) -> np.ndarray:
        return read_map(path)


def read_depth(path: Path) -> np.ndarray:
    """float32 (H, W, 1): metres; 255 where nothing was measured."""
    with naming(path):
        depth = np.load(path, allow_pickle=False).astype(np.float32)
    if depth.ndim != 2:
        raise FaultyFile(f"{path} has shape {depth.shape} where (height, width) is expected: it is not a depth map.")
    depth[depth == 0] = IGNORE
    return depth[..., None]

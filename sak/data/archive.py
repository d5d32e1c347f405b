"""What the multi-task archives share: ids from a list, one file or two per task, samples that a seed determines."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
from torch.utils.data import Dataset

from sak.data import transforms
from sak.data.reading import FaultyFile, naming, read_image
from sak.errors import UserError
from sak.metrics.boundary import boundary_map

# For one file: the places where it may lie under the root, "{}" for the image's id; the first that exists is read.
Places = tuple[str, ...]


class Archive(Dataset):
    """A labelled data set on disk; nothing is ever written to it.

    Items: {"image": float32 (3, H, W) in [0, 1], "<task>": label, "name": str, "size": (h, w)}. Labels are int64 (H, W)
    for semseg, human_parts and saliency, float32 (1, H, W) for edge and depth (metres), float32 (3, H, W) for normals;
    255 = ignore in every one. The image is centred on the canvas (`transforms.margins`), "size" is its own.
    Where "edge" is a task, unaugmented items also hold "boundaries": uint8 (1, H, W), 1 on the boundaries that
    the evaluation matches, 255 on the padding.

    Args:
        root: the archive's folder.
        split: "train" or "val".
        tasks: which labels to read, all by default.
        image_size: the canvas (H, W).
        augment: apply the training recipe (`transforms.for_training`).
        seed: of the augmentation, which is a function of (seed, epoch, index) alone: see `set_epoch`.

    Raises:
        UserError: for an unknown split or task, for missing files (all are counted, the first is named), and when an
            item is read whose file is damaged or holds values out of range.
    """

    TITLE: str
    TASKS: tuple[str, ...]
    IMAGES: str
    LISTS: str
    FILES: dict[str, tuple[Places, ...]]  # the files that each task needs
    RELEASE: dict[str, int]  # the number of images of each split as it was published

    def __init__(
        self,
        root: str | os.PathLike,
        split: str = "train",
        tasks: Sequence[str] | None = None,
        image_size: Sequence[int] = (512, 512),
        augment: bool = False,
        seed: int = 0,
    ):
        self.root = Path(root)
        self.split = split
        self.tasks = self.TASKS if tasks is None else tuple(tasks)
        self.image_size = tuple(image_size)
        self.augment = augment
        self.seed = seed
        self.epoch = 0

        unknown = [task for task in self.tasks if task not in self.TASKS]
        if unknown:
            raise UserError(f"{self.TITLE} has no task {unknown[0]!r}: it has {', '.join(self.TASKS)}.")
        self.names = self.list_names(self.root, split)
        found, missing = self.find_files(self.root, self.names, self.tasks)
        if missing:
            task, first = missing[0]
            raise UserError(
                f"{self.TITLE} ({split}) lacks {len({file for _, file in missing})} of its files, the first is {first} "
                f"({task}): extract the archive again, or leave the task out of data.tasks."
            )
        files = cast(dict[str, list[list[Path]]], found)
        self.image_files = [path for (path,) in files.pop("image")]
        self._files = files

    @classmethod
    def list_names(cls, root: Path, split: str) -> list[str]:
        """The ids of a split, in the list's order.

        Raises:
            UserError: there is no such split, no such folder, or no list.
        """
        if split not in cls.RELEASE:
            raise UserError(f"{cls.TITLE} has no split {split!r}: it has train and val.")
        if not root.is_dir():
            raise UserError(f"{root}, the root of {cls.TITLE}, is not a folder: set data.root to the archive's.")
        path = root / cls.LISTS.format(split)
        if not path.is_file():
            raise UserError(f"{path}, the list of {split} images, is missing: is {root} the right archive?")
        with naming(path):
            names = path.read_text(encoding="utf-8").split()
        if not names:
            raise UserError(f"{path} lists no image: restore it from the archive.")
        return names

    @classmethod
    def find_files(
        cls, root: Path, names: Sequence[str], tasks: Sequence[str]
    ) -> tuple[dict[str, list[list[Path | None]]], list[tuple[str, str]]]:
        """Where the files of images and tasks lie, and which do not exist.

        Returns:
            {"image" or task: for each name the files that it needs}, None in the place of a missing one; and
            (task, file) of those, in the names' order, each once for a task.
        """
        needed = {"image": ((cls.IMAGES,),), **{task: cls.FILES[task] for task in tasks}}
        folders = {os.path.dirname(place) for files in needed.values() for places in files for place in places}
        # One listing per folder instead of one query per file: archives often lie on a network.
        present = {
            f"{folder}/{name}" for folder in folders if (root / folder).is_dir() for name in os.listdir(root / folder)
        }
        found: dict[str, list[list[Path | None]]] = {task: [] for task in needed}
        missing: dict[tuple[str, str], None] = {}  # in the order in which they are met
        for name in names:
            for task, files in needed.items():
                paths = []
                for places in files:
                    candidates = [place.format(name) for place in places]
                    path = next((candidate for candidate in candidates if candidate in present), None)
                    if path is None:
                        missing[task, ", or ".join(str(root / candidate) for candidate in candidates)] = None
                    paths.append(None if path is None else root / path)
                found[task].append(paths)
        return found, list(missing)

    @staticmethod
    def read(task: str, size: tuple[int, int], *paths: Path) -> np.ndarray:
        """The label of one task, laid out as `transforms` says, for an image of `size` (h, w).

        `paths` are the files that `FILES` names for the task.
        """
        raise NotImplementedError

    @staticmethod
    def read_boundaries(path: Path) -> np.ndarray:
        """The label map (H, W) between whose regions the evaluation's boundaries run, from the file of "edge"."""
        raise NotImplementedError

    def set_epoch(self, epoch: int) -> None:
        """Choose the augmentations of an epoch. Call it before the loader's workers start: they hold a copy."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict:
        index = range(len(self))[index]  # refuses what is out of range, counts negative ones from the end
        sample: transforms.Sample = {"name": self.names[index], "image": read_image(self.image_files[index])}
        size = sample["image"].shape[:2]
        for task in self.tasks:
            sample[task] = self.read(task, size, *self._files[task][index])
        self._check_shapes(sample, index)
        if self.augment:
            rng = np.random.default_rng([self.seed, self.epoch, index])
            return transforms.for_training(sample, rng, self.image_size)
        if "edge" in self.tasks:
            sample["boundaries"] = self.read_boundaries(*self._files["edge"][index])
        sample = transforms.fit(sample, self.image_size)
        if "boundaries" in sample:  # drawn after the labels were fitted: a drawn line would not survive shrinking
            sample["boundaries"] = boundary_map(sample["boundaries"]).astype(np.uint8)[..., None]
        return transforms.for_evaluation(sample, self.image_size)

    def _check_shapes(self, sample: dict, index: int) -> None:
        size = sample["image"].shape[:2]
        for task in self.tasks:
            if sample[task].shape[:2] != size:
                raise FaultyFile(
                    f"{self._files[task][index][0]} is {sample[task].shape[:2]} pixels (height, width), but its image "
                    f"{self.image_files[index]} is {size}: restore both from the archive."
                )

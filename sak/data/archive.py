"""What the multi-task archives share: ids from a list, one file or two per task, samples that a seed determines."""

import copy
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from omegaconf import DictConfig
from torch.utils.data import Dataset

from sak.config.schema import DataConfig
from sak.data import transforms
from sak.data.description import Description
from sak.data.discovery import Listings, files_in
from sak.data.reading import check_label, ignore_far, read_ids, read_image, stored_size
from sak.errors import UserError
from sak.tasks import TASKS, Kind, Task, find_task
from sak.tasks.edge import boundaries_of

SPLITS = ("train", "val")
# For one file: the places where it may lie under the root, "{}" or "{name}" for the image's id and "{split}" for the
# folder of its split; the first that exists is read.
Places = tuple[str, ...]


class Archive(Dataset):
    """A labelled data set on disk; nothing is ever written to it.

    Items: {"image": float32 (3, H, W) in [0, 1], "<task>": label, "name": str, "size": (h, w)}. Labels are int64 (H, W)
    for semseg, human_parts and saliency, float32 (1, H, W) for edge and depth (metres), float32 (3, H, W) for normals;
    255 = ignore in every one. The image is centred on the canvas (`transforms.margins`), "size" is its own.
    Where "edge" is a task, unaugmented items also hold "boundaries": uint8 (1, H, W), 1 on the boundaries that
    the evaluation matches, 255 on the padding.

    Images are read as they are stored, whatever orientation their EXIF data tell: the labels fit these pixels.

    Args:
        root: the archive's folder.
        split: "train" or "val".
        tasks: which labels to read, all by default.
        image_size: the canvas (H, W); `CANVAS` by default.
        augment: apply the training recipe (`transforms.for_training`).
        seed: of the augmentation, which is a function of (seed, epoch, index) alone: see `set_epoch`.
        crop_by_semseg: let the augmentation's crop look at semseg, which is read for it, where it is not among the
            tasks. The published loader looks at it only where it is.
        scale: range of the augmentation's random scale, as published by default.
        edges_after_scaling: let the augmentation draw the boundaries of "edge" when the map of regions is scaled, as
            thin as ever; the published loader scales the drawn line, which grows thick, or breaks.
        normals_tolerance: ignore normals whose length is farther than this from 1; None: none, as published.

    Raises:
        UserError: for an unknown split or task, for missing files (all are counted, the first is named), and when an
            item is read whose file is corrupt or holds values out of range.
    """

    DESCRIPTION: Description
    TASKS: tuple[str, ...]  # those of the description
    IMAGES: str
    LISTS: str
    FILES: dict[str, tuple[Places, ...]]  # the files that each task needs
    FOLDERS: Mapping[str, str] = {}  # what "{split}" stands for, where it is not the split's own name
    READ_AS = ""  # what a config says of how labels are read, which other samples come from
    REMEDY = "extract the archive again, or leave the task out of data.tasks"
    FROM_CONFIG = False  # whether a config says where files lie and which classes there are
    OWN: Mapping[str, type[Task]] = {}  # of the tasks, those that read their labels themselves
    CANVAS = (512, 512)

    def __init__(
        self,
        root: str | os.PathLike,
        split: str = "train",
        tasks: Sequence[str] | None = None,
        image_size: Sequence[int] | None = None,
        augment: bool = False,
        seed: int = 0,
        crop_by_semseg: bool = False,
        normals_tolerance: float | None = None,
        scale: Sequence[float] = transforms.SCALE,
        edges_after_scaling: bool = False,
    ):
        self.root = Path(os.path.expanduser(root))
        self.split = split
        self.tasks = self.TASKS if tasks is None else tuple(tasks)
        self.image_size = tuple(image_size or self.CANVAS)
        self.augment = augment
        self.seed = seed
        self.normals_tolerance = normals_tolerance
        self.scale = (scale[0], scale[1])
        self.edges_after_scaling = edges_after_scaling
        self.epoch = 0
        self._with_images = True

        unknown = [task for task in self.tasks if task not in self.TASKS]
        if unknown:
            raise UserError(f"{self.DESCRIPTION.title} has no task {unknown[0]!r}: it has {', '.join(self.TASKS)}.")
        if edges_after_scaling and "edge" in self.tasks and self.draw_edges is None:
            problem = f"the boundaries of {self.DESCRIPTION.title} are stored as lines, not as regions"
            raise UserError(f"data.edges_after_scaling is set, but {problem}: set it to false")
        self._labels = {name: self.task(name) for name in self.labels_read(self.tasks, crop_by_semseg and augment)}
        self.names = self.list_names(self.root, split)
        found, missing = self.find_files(self.root, split, self.names, tuple(self._labels))
        if missing:
            task, first = missing[0]
            raise UserError(
                f"{self.DESCRIPTION.title} ({split}) lacks {len({file for _, file in missing})} of its files, the "
                f"first is {first} ({task}): {self.REMEDY}."
            )
        files = cast(dict[str, list[list[Path]]], found)
        self.image_files = [path for (path,) in files.pop("image")]
        self._files = files

    @property
    def crop_files(self) -> list[Path]:
        """The label maps that decide where the images are cropped (`transforms.random_crop`)."""
        if not self.augment or "semseg" not in self._labels:
            return []
        return [path for paths in self._files["semseg"] for path in paths]

    @classmethod
    def labels_read(cls, tasks: Sequence[str], crop_by_semseg: bool) -> tuple[str, ...]:
        """The tasks, and what is read for the crop alone.

        Raises:
            UserError: the crop is to look at semseg, which this data set does not have.
        """
        if not crop_by_semseg or "semseg" in tasks:
            return tuple(tasks)
        if "semseg" not in cls.TASKS:
            raise UserError(f"data.crop_by_semseg is set, but {cls.DESCRIPTION.title} has no semseg: set it to false")
        return (*tasks, "semseg")

    @classmethod
    def list_names(cls, root: Path, split: str) -> list[str]:
        """The ids of a split, in the list's order.

        Raises:
            UserError: there is no such split, no such folder, or no list, or a line of it is no id.
        """
        title = cls.DESCRIPTION.title
        if split not in SPLITS:
            raise UserError(f"{title} has no split {split!r}: it has train and val.")
        if not root.is_dir():
            raise UserError(f"{root}, the root of {title}, is not a folder: set data.root to the archive's.")
        path = root / cls.LISTS.format(split, split=cls.FOLDERS.get(split, split))
        if not path.is_file():
            raise UserError(f"{path}, the list of {split} images, is missing: is {root} the right archive?")
        images = functools.cache(lambda: files_in((root / cls.IMAGES).parent))
        return read_ids(path, lambda name: os.path.basename(cls.IMAGES).format(name) in images())

    @classmethod
    def find_files(
        cls, root: Path, split: str, names: Sequence[str], tasks: Sequence[str]
    ) -> tuple[dict[str, list[list[Path | None]]], list[tuple[str, str]]]:
        """`Listings.find_all` of "image" and the tasks."""
        needed = {"image": cls.places("image"), **{task: cls.places(task) for task in tasks}}
        return Listings(root).find_all(needed, names, cls.FOLDERS.get(split, split))

    @classmethod
    def shares_images(cls) -> bool:
        """Whether a name stands for the same image in all splits."""
        return "{split}" not in cls.IMAGES

    @classmethod
    def places(cls, task: str) -> tuple[Places, ...]:
        """Where each file of an image ("image") or of a task's label may lie."""
        return ((cls.IMAGES,),) if task == "image" else cls.FILES[task]

    @staticmethod
    def read(task: str, size: tuple[int, int], *paths: Path) -> np.ndarray:
        """The label of one task, laid out as `transforms` says, for an image of `size` (h, w).

        `paths` are the files that `FILES` names for the task.
        """
        raise NotImplementedError

    # From the map (H, W) that `read_boundaries` reads to the label of "edge"; None where the label alone is stored.
    draw_edges: Callable[[np.ndarray], np.ndarray] | None = None

    @staticmethod
    def read_boundaries(path: Path) -> np.ndarray:
        """The label map (H, W) between whose regions the evaluation's boundaries run, from the file of "edge"."""
        raise NotImplementedError

    def set_epoch(self, epoch: int) -> None:
        """Choose the augmentations of an epoch. Call it before the loader's workers start: they hold a copy."""
        self.epoch = epoch

    @property
    def files(self) -> list[Path]:
        """All files that its samples are read from, each once."""
        labels = (path for of_task in self._files.values() for paths in of_task for path in paths)
        return [path for path in dict.fromkeys([*self.image_files, *labels]) if path is not None]

    def label_files(self, task: str) -> Sequence[Sequence[Path]]:
        """Those that each image's label of a task is read from."""
        return self._files[task]

    def part(self, share: float, seed: int) -> "Archive":
        """A random share of its images, at least one; with one seed a smaller share is part of a larger one."""
        order = np.random.default_rng(seed).permutation(len(self))
        chosen = sorted(order[: max(1, round(share * len(self)))].tolist())
        part = copy.copy(self)
        part.names, part.image_files = ([values[i] for i in chosen] for values in (self.names, self.image_files))
        part._files = {task: [files[i] for i in chosen] for task, files in self._files.items()}
        return part

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict:
        return transforms.finish(self.packed(index))

    def packed(self, index: int) -> dict:
        """The item before `transforms.finish`, which an augmented one does not need."""
        index = range(len(self))[index]  # refuses what is out of range, counts negative ones from the end
        path = self.image_files[index]
        sample: transforms.Sample = {"name": self.names[index]}
        if self._with_images:
            sample["image"] = read_image(path)
            size = transforms.grid(sample)
        else:
            size = stored_size(path)
        draws = self.draw_edges if self.augment and self.edges_after_scaling else None
        for task in self._labels:
            read = self.read_regions if draws and task == "edge" else self.read_label
            sample[task] = read(task, size, path, self._files[task][index])
        if "normals" in sample and self.normals_tolerance is not None:
            sample["normals"] = ignore_far(sample["normals"], self.normals_tolerance)
        if self.augment:
            rng = np.random.default_rng([self.seed, self.epoch, index])
            sample = transforms.for_training(sample, rng, self.image_size, self._labels, self.scale, draws)
            return {key: value for key, value in sample.items() if key not in self._labels or key in self.tasks}
        evaluated = {boundaries_of(name): name for name, task in self._labels.items() if task.kind is Kind.BOUNDARY}
        for key, task in evaluated.items():
            sample[key] = self.read_regions(task, size, path, self._files[task][index])
        sample = transforms.fit(sample, self.image_size)
        for key, task in evaluated.items():
            sample[key] = transforms.evaluated_boundaries(sample[key], sample[task])
        return transforms.packed_for_evaluation(sample, self.image_size, self._labels)

    def without_images(self) -> "Archive":
        """The same unaugmented items but for "image", which is not decoded: for whoever asks for labels alone."""
        if self.augment or not self.tasks:
            raise ValueError("an augmentation looks at the images, and without tasks there is nothing else")
        labels = copy.copy(self)
        labels._with_images = False
        return labels

    @classmethod
    def configured(cls, data: DataConfig | DictConfig) -> "type[Archive]":
        """This class, with what a config says of the data set: here its own tasks, whose labels lie where they say.

        Raises:
            UserError: the config asks for what the data set does not have.
        """
        for key in ("classes", "colours", "images", "labels", "lists", "splits"):
            if data[key] if isinstance(data, DictConfig) else getattr(data, key):
                raise UserError(f"data.{key} is set, but {cls.DESCRIPTION.title} is what it is: leave it out")
        own = {kind.name: kind for entry in data.tasks if ":" in entry for kind in [find_task(entry)]}
        if not own:
            return cls
        title = cls.DESCRIPTION.title
        for name, kind in own.items():
            if kind.default is None or not kind.files or kind.read is Task.read:
                lacking = "default, files and read"
                raise UserError(f"{title} knows nothing of the task {name!r}: its class has to have {lacking}")
        said = {**cls.DESCRIPTION.tasks, **{name: kind.default for name, kind in own.items() if kind.default}}
        return type(
            cls.__name__,
            (cls,),
            {
                "__module__": cls.__module__,
                "DESCRIPTION": dataclasses.replace(cls.DESCRIPTION, tasks=said),
                "TASKS": tuple(said),
                "FILES": {**cls.FILES, **{name: kind.files for name, kind in own.items()}},
                "OWN": own,
            },
        )

    @classmethod
    def task(cls, name: str) -> Task:
        """One of its tasks, on its labels."""
        return {**TASKS, **cls.OWN}[name](cls.DESCRIPTION.tasks[name])

    @classmethod
    def read_label(cls, task: str, size: tuple[int, int], image: Path, paths: Sequence[Path]) -> np.ndarray:
        """`read`, or the reading of a task of one's own, and `check_label`."""
        label = cls.OWN[task].read(*paths) if task in cls.OWN else cls.read(task, size, *paths)
        return check_label(label, size, image, paths)

    @classmethod
    def read_regions(cls, task: str, size: tuple[int, int], image: Path, paths: Sequence[Path]) -> np.ndarray:
        """The map (H, W) between whose regions the boundaries of a task run, which takes no time to draw."""
        if task != "edge":
            return cls.read_label(task, size, image, paths)[..., 0]
        return check_label(cls.read_boundaries(*paths), size, image, paths)

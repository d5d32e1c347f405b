"""Images with objects in boxes: of archives with masks (mini_context, PASCAL-Context) and of COCO's JSON files."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from sak.data.archive import Archive
from sak.data.reading import FaultyFile, naming, read_image, read_matlab
from sak.data.shards.names import Names
from sak.errors import UserError, shown
from sak.vocabulary.prompts import Box, is_box


class Object(NamedTuple):
    """
    Attributes:
        name: of its class.
        box: (x1, y1, x2, y2) as shares of the image's width and height.
        phrase: what it is called where more is known than its class: "red ball".
    """

    name: str
    box: Box
    phrase: str = ""


class Scene(NamedTuple):
    """
    Attributes:
        image: uint8 (H, W, 3), of any shape.
    """

    image: np.ndarray
    objects: list[Object]


class Scenes(Protocol):
    def __len__(self) -> int:
        """How many there are; 0 if they are drawn, and never end."""

    def scene(self, number: int, rng: np.random.Generator) -> Scene: ...


class PartScenes:
    """Those of an archive whose parts come with the masks of all objects, as PASCAL-Part's do.

    Args:
        least: share of the image below which an object is left out.
    """

    def __init__(self, archive: Archive, least: float):
        self.images, self.annotations, self.least = archive.image_files, archive.label_files("human_parts"), least

    def __len__(self) -> int:
        return len(self.images)

    def scene(self, number: int, rng: np.random.Generator) -> Scene:
        path = self.annotations[number][0]
        annotation = read_matlab(path, "anno")
        try:
            masks = [
                (str(thing["class"].item()), np.asarray(thing["mask"])) for thing in annotation["objects"][0, 0].ravel()
            ]
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:  # of structures of another kind
            raise FaultyFile(f"{path}: anno is not built as PASCAL-Part's: restore it from the archive.") from error
        if any(mask.ndim != 2 for _, mask in masks):
            raise FaultyFile(f"{path} holds a mask that is no map (height, width): restore it from the archive.")
        objects = [
            Object(name, box_of(mask > 0)) for name, mask in masks if (mask > 0).mean() >= self.least and mask.any()
        ]
        return Scene(read_image(self.images[number]), [found for found in objects if is_box(found.box)])


def box_of(mask: np.ndarray) -> Box:
    """The box around a mask (H, W) that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    x1, x2, y1, y2 = columns[0] / width, (columns[-1] + 1) / width, rows[0] / height, (rows[-1] + 1) / height
    return float(x1), float(y1), float(x2), float(y2)


class CocoScenes:
    """Those of a JSON file in COCO's format. Crowds are left out, and a box that reaches out of its image is cut there.

    Args:
        images: the folder that the file names lie in.
        least: share of the image below which an object's box is left out.

    Raises:
        UserError: the file is none of COCO's, or a box of it lies outside of its image.
    """

    def __init__(self, file: Path, images: Path, least: float):
        self.folder = images
        with naming(file):
            content = json.loads(file.read_bytes())
        try:
            names = {category["id"]: str(category["name"]) for category in content["categories"]}
            sizes = {image["id"]: (float(image["width"]), float(image["height"])) for image in content["images"]}
            of_image: Mapping[object, list] = defaultdict(list)
            for entry in content["annotations"]:
                if not entry.get("iscrowd"):
                    of_image[entry["image_id"]].append((names[entry["category_id"]], entry["bbox"], entry.get("id")))
            self.names = Names.of(str(image["file_name"]) for image in content["images"])
            kept = [_boxes(of_image[number], size, least, file) for number, size in sizes.items()]
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{file} is no annotation file of COCO's ({shown(error)}): give instances_*.json"
            ) from error
        if not sizes:
            raise UserError(f"{file} has no images: give COCO's instances_*.json")
        # In arrays, which worker processes share.
        self.classes = sorted(set(names.values()))
        numbers = {name: number for number, name in enumerate(self.classes)}
        self.ends = np.cumsum([len(objects) for objects in kept], dtype=np.int64)
        self.labels = np.array([numbers[name] for objects in kept for name, _ in objects], np.int32)
        self.boxes = np.array([box for objects in kept for _, box in objects], np.float64).reshape(-1, 4)

    def __len__(self) -> int:
        return len(self.names)

    def scene(self, number: int, rng: np.random.Generator) -> Scene:
        start, end = int(self.ends[number - 1]) if number else 0, int(self.ends[number])
        labels, boxes = self.labels[start:end].tolist(), self.boxes[start:end].tolist()
        objects = [Object(self.classes[label], tuple(box)) for label, box in zip(labels, boxes, strict=True)]
        return Scene(read_image(self.folder / self.names[number]), objects)


def _boxes(
    entries: Sequence[tuple[str, Sequence[float], object]], size: tuple[float, float], least: float, file: Path
) -> list[tuple[str, Box]]:
    """COCO's boxes, [left, top, width, height] in pixels, as shares of their image."""
    width, height = size
    kept = []
    for name, (left, top, wide, high), number in entries:
        x1, x2 = (min(max(x / width, 0.0), 1.0) for x in (left, left + wide))
        y1, y2 = (min(max(y / height, 0.0), 1.0) for y in (top, top + high))
        if wide > 0 and high > 0 and (x1 >= x2 or y1 >= y2):
            raise UserError(
                f"{file}: the box [{left:g}, {top:g}, {wide:g}, {high:g}] (annotation {number}) lies outside of its "
                f"image of {width:g} x {height:g} pixels: mend the file"
            )
        if (x2 - x1) * (y2 - y1) >= least and is_box(box := (x1, y1, x2, y2)):
            kept.append((name, box))
    return kept

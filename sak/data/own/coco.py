"""COCO's annotations as class maps that ``data.dataset: folders`` reads: a PNG for each image, and the names.

Instances are drawn by pycocotools, the largest first, so that what lies on something else stays visible; panoptic
segments are recoloured. JSON files of gigabytes are read once and not by every process that loads data.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from sak.data.reading import FaultyFile, naming, read_image
from sak.errors import UserError
from sak.files import replacing, write_json, write_text
from sak.labels import IGNORE

MANIFEST = "coco.json"  # beside the maps: what they were made of


def convert(annotations: Path, output: Path, segments: Path | None = None, progress: bool = True) -> int:
    """Write ``output/NAME.png`` for each image of a COCO file, and ``classes.txt`` in the folder above.

    A conversion that was stopped goes on where it was; maps that are there are left as they are.

    Args:
        annotations: instances_*.json, or panoptic_*.json.
        segments: the folder of the panoptic PNGs; None: instances.

    Returns:
        how many images there are.

    Raises:
        UserError: the files are none of COCO's, `output` holds something else, or pycocotools is not there.
    """
    content = _read(annotations, panoptic=segments is not None)
    labels, names = classes(content["categories"], background=segments is None, where=annotations)
    images = {image["id"]: image for image in content["images"]}
    for image in images.values():
        parts = PurePosixPath(image["file_name"]).parts
        if not parts or ".." in parts or parts[0] == "/":
            raise UserError(f"{annotations} names the image {image['file_name']!r}, which lies in no folder below")
    state = annotations.stat()
    origin = {"annotations": str(annotations.resolve()), "bytes": state.st_size, "changed": state.st_mtime_ns}
    _open(output, {**origin, "segments": segments and str(segments.resolve())})
    list_of_names = output.parent / "classes.txt"
    text = "".join(f"{name}\n" for name in names)
    if list_of_names.exists() and list_of_names.read_text(encoding="utf-8") != text:
        raise UserError(f"{list_of_names} names other classes than {annotations}: choose another folder")
    write_text(list_of_names, text)
    if segments is None:
        maps = draw_instances(content, images, labels)
    else:
        maps = recolour_segments(content, images, labels, segments)
    for name, draw in tqdm(maps, "draw", len(images), unit="img", disable=not progress, dynamic_ncols=True):
        place = output / f"{PurePosixPath(name).with_suffix('')}.png"
        if not place.exists():
            with replacing(place) as partial:
                Image.fromarray(draw()).save(partial, format="PNG", compress_level=1)
    return len(images)


def classes(categories: Sequence[Mapping], background: bool, where: Path) -> tuple[dict[int, int], list[str]]:
    """({category: its label}, the labels' names), in the order of the categories' ids.

    Args:
        background: whether label 0 is what no category covers.

    Raises:
        UserError: there are more than labels can tell apart.
    """
    ordered = sorted(categories, key=lambda category: category["id"])
    names = [*(["background"] if background else []), *(str(category["name"]) for category in ordered)]
    if len(names) > IGNORE:
        raise UserError(f"{where} has {len(names)} classes, but there may be {IGNORE}, as labels are stored in 8 bits")
    return {category["id"]: label + background for label, category in enumerate(ordered)}, names


def draw_instances(content: Mapping, images: Mapping[int, Mapping], labels: Mapping[int, int]) -> Iterator:
    """(file name, a function that draws the map) of each image. What is marked as a crowd is ignored."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise UserError("instances are drawn by pycocotools: pip install 'sak[coco]'") from error

    def outline(annotation: Mapping, height: int, width: int) -> np.ndarray:
        shape = annotation["segmentation"]
        if isinstance(shape, list):
            shape = mask.merge(mask.frPyObjects(shape, height, width)) if shape else None
        elif isinstance(shape["counts"], list):
            shape = mask.frPyObjects(shape, height, width)
        return mask.decode(shape).astype(bool) if shape else np.zeros((height, width), bool)

    def draw(image: Mapping, annotations: Iterable[Mapping]) -> np.ndarray:
        drawn = np.zeros((image["height"], image["width"]), np.uint8)
        # Crowds first: what is annotated in front of one is known.
        for annotation in sorted(annotations, key=lambda a: (not a.get("iscrowd"), -a["area"])):
            label = IGNORE if annotation.get("iscrowd") else labels[annotation["category_id"]]
            drawn[outline(annotation, *drawn.shape)] = label
        return drawn

    of_images: dict[int, list[Mapping]] = defaultdict(list)
    for annotation in content["annotations"]:
        of_images[annotation["image_id"]].append(annotation)
    for number, image in images.items():
        yield image["file_name"], lambda image=image, number=number: draw(image, of_images[number])


def recolour_segments(
    content: Mapping, images: Mapping[int, Mapping], labels: Mapping[int, int], folder: Path
) -> Iterator:
    """The same of panoptic PNGs, whose colours are numbers of segments. What is in none, and crowds, are ignored."""

    def draw(annotation: Mapping) -> np.ndarray:
        path = folder / annotation["file_name"]
        colours = read_image(path).astype(np.uint32)
        numbers = colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2]
        found, places = np.unique(numbers, return_inverse=True)
        meaning = {0: IGNORE}
        for segment in annotation["segments_info"]:
            meaning[segment["id"]] = IGNORE if segment.get("iscrowd") else labels[segment["category_id"]]
        if strays := [number for number in found.tolist() if number not in meaning]:
            raise FaultyFile(f"{path} holds the segment {strays[0]}, which its JSON does not have: restore both.")
        return np.array([meaning[number] for number in found.tolist()], np.uint8)[places].reshape(numbers.shape)

    for annotation in content["annotations"]:
        name = images[annotation["image_id"]]["file_name"]
        yield name, lambda annotation=annotation: draw(annotation)


def _read(path: Path, panoptic: bool) -> dict[str, Any]:
    with naming(path):
        text = path.read_bytes()
    try:
        content = json.loads(text)
        of_panoptic = any("segments_info" in annotation for annotation in content["annotations"][:1])
        if not content["images"] or not content["categories"] or not all("file_name" in i for i in content["images"]):
            raise KeyError("images and categories")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is no annotation file of COCO's ({error}): give instances_*.json or panoptic_*.json"
        ) from error
    if of_panoptic != panoptic:
        what = "panoptic segments: name the folder of their PNGs" if of_panoptic else "instances: leave out --segments"
        raise UserError(f"{path} holds {what}" + (" with --segments" if of_panoptic else ""))
    return content


def _open(output: Path, origin: dict) -> None:
    """
    Raises:
        UserError: the folder holds something else than maps of the same annotations.
    """
    manifest = output / MANIFEST
    if manifest.is_file():
        with naming(manifest):
            if json.loads(manifest.read_text(encoding="utf-8")) != origin:
                raise UserError(f"{output} holds maps of other annotations: choose another --out, or remove it")
    elif output.exists() and any(os.scandir(output)):
        raise UserError(f"{output} is not empty, and holds no maps of an earlier start: choose another --out")
    else:
        write_json(manifest, origin)

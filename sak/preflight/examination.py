"""One labelled image, read and measured file by file: what its files say, and what is wrong with them.

Whatever can be seen in one image is decided here; `sak.preflight.survey` adds up the images of an archive.
Legend: H, W image.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sak.data.archive import Archive
from sak.data.reading import read_image, read_levels
from sak.data.reading.pixels import Source, opened
from sak.errors import UserError
from sak.labels import IGNORE
from sak.metrics.rmse import MAX_DEPTH
from sak.tasks import Kind, Task

ROUNDING = 3**0.5 / 255  # how far 8 bits a component can move the length of a unit vector
NO_UNIT = 0.05  # a vector whose length is farther than this from 1 is none of unit length
STORED = "saliency stored as "  # before the encoding of a map


class Problem(NamedTuple):
    """
    Attributes:
        kind: a key of `sak.preflight.summary.REMEDIES`.
        subject: the task or split that it is about.
        detail: what and where, a part of a sentence.
    """

    kind: str
    subject: str
    detail: str


@dataclasses.dataclass
class Findings:
    """
    Attributes:
        sums: counts that can be added over images.
        values: one number of this image for each key.
    """

    problems: list[Problem] = dataclasses.field(default_factory=list)
    sums: Counter = dataclasses.field(default_factory=Counter)
    values: dict[str, float] = dataclasses.field(default_factory=dict)


def examine(kind: type[Archive], canvas: Sequence[int], files: dict[str, list[Path | None]]) -> Findings:
    """Read the files of one image and of its labels, with the functions that training reads them with.

    Args:
        kind: the archive's class, which reads the labels.
        canvas: (H, W) of the config; images beyond it are counted.
        files: {"image" or task: its files}; None stands for one that is missing: the label is left out.
    """
    findings = Findings()

    def attempt(subject: str, function: Callable, *arguments):
        try:
            return function(*arguments)
        except UserError as error:
            findings.problems.append(Problem(getattr(error, "kind", "content"), subject, str(error)))
            return None

    (path,) = files["image"]
    size = None if path is None else attempt("image", examine_image, path, canvas, findings)
    if size is None:
        return findings
    for task, given in files.items():
        paths = [path for path in given if path is not None]
        if task == "image" or len(paths) < len(given):
            continue
        label = attempt(task, read_label, kind, task, size, path, paths)
        if label is not None:
            check(kind.task(task), label, paths, findings)
    return findings


def read_label(kind: type[Archive], task: str, size: tuple[int, int], image: Path, paths: list[Path]) -> np.ndarray:
    """The label as training reads it; of boundaries the map that they are drawn from, which takes no time."""
    if kind.task(task).kind is Kind.BOUNDARY:
        return kind.read_regions(task, size, image, paths)
    return kind.read_label(task, size, image, paths)


def examine_image(path: Source, canvas: Sequence[int], findings: Findings, upright: bool = False) -> tuple[int, int]:
    with opened(path) as file:
        mode = file.mode
    height, width = read_image(path, upright).shape[:2]
    findings.sums[f"mode {mode}"] += 1
    findings.sums["images"] += 1
    findings.sums["larger"] += height > canvas[0] or width > canvas[1]
    findings.values |= {"height": height, "width": width}
    return height, width


def examine_unlabelled(canvas: Sequence[int], path: Source) -> Findings:
    """Read one image of the distillation's."""
    findings = Findings()
    try:
        examine_image(path, canvas, findings, upright=True)
    except UserError as error:
        findings.problems.append(Problem(getattr(error, "kind", "content"), "distill", str(error)))
    return findings


def count_ignored(task: str, valid: np.ndarray, findings: Findings) -> None:
    findings.sums[f"{task} maps"] += 1
    findings.sums[f"{task} pixels"] += valid.size
    findings.sums[f"{task} valid"] += int(valid.sum())
    findings.sums[f"{task} all ignored"] += not valid.any()


def check(task: Task, label: np.ndarray, paths: list[Path], findings: Findings) -> None:
    """Look at a label as its kind asks for, and at those of our own tasks more closely."""
    closer = {"saliency": examine_saliency, "normals": examine_normals}
    if look := closer.get(task.name):
        return look(label, paths, findings)
    by_kind = {Kind.CLASSES: examine_classes, Kind.BOUNDARY: examine_boundaries}
    by_kind.get(task.kind, examine_numbers)(task, label, paths, findings)
    return None


def examine_classes(task: Task, label: np.ndarray, paths: list[Path], findings: Findings) -> None:
    valid = label != IGNORE
    count_ignored(task.name, valid, findings)
    findings.sums[f"{task.name} empty"] += not (valid & (label != task.description.background)).any()
    for value, pixels in zip(*np.unique(label[label != IGNORE], return_counts=True), strict=True):
        findings.sums[f"{task.name} class {value}"] += 1
        findings.sums[f"{task.name} pixels of {value}"] += int(pixels)


def examine_saliency(label: np.ndarray, paths: list[Path], findings: Findings) -> None:
    findings.sums["saliency maps"] += 1
    findings.sums["saliency pixels"] += label.size
    findings.sums["saliency salient"] += int(label.sum())
    findings.sums["saliency without"] += not label.any()
    levels = read_levels(*paths)
    if levels.values.any():  # an empty map is the same in all encodings
        findings.values[f"{STORED}{levels.encoding}"] = 1


def examine_normals(normals: np.ndarray, paths: list[Path], findings: Findings) -> None:
    valid = (normals != IGNORE).all(axis=-1)
    count_ignored("normals", valid, findings)
    if not valid.any():
        return
    vectors = normals[valid]
    lengths = np.linalg.norm(vectors, axis=-1)
    off = np.abs(lengths - 1)
    findings.sums["normals exact"] += int((off <= ROUNDING).sum())
    findings.sums["normals toward"] += int((vectors[:, 2] > 0).sum())
    findings.values["normals toward"] = float((vectors[:, 2] > 0).mean())
    # Where a surface lies in the image says where it tends to point: what is seen on the left faces right, ...
    height, width = valid.shape
    for axis, key, first, second in (
        (0, "normals x", np.s_[:, : width // 3], np.s_[:, -(width // 3) :]),
        (1, "normals y", np.s_[-(height // 3) :], np.s_[: height // 3]),  # ... and what is below faces up
    ):
        if valid[first].any() and valid[second].any():
            means = [float(normals[part][valid[part]][:, axis].mean()) for part in (first, second)]
            findings.values[key] = means[0] - means[1]
    if (off > NO_UNIT).mean() > 0.1:
        detail = (
            f"{paths[0]}: {(off > NO_UNIT).mean():.0%} of its vectors are not of unit length, mean {lengths.mean():.2f}"
        )
        findings.problems.append(Problem("normals", "normals", detail))


def examine_boundaries(task: Task, values: np.ndarray, paths: list[Path], findings: Findings) -> None:
    """Either the label map between whose regions boundaries run (.mat), or the boundaries as drawn."""
    drawn = values > 0
    if str(paths[0]).lower().endswith(".mat"):
        drawn = np.zeros(values.shape, dtype=bool)
        drawn[:, :-1] |= values[:, :-1] != values[:, 1:]
        drawn[:-1] |= values[:-1] != values[1:]
    findings.sums[f"{task.name} maps"] += 1
    findings.sums[f"{task.name} pixels"] += drawn.size
    findings.sums[f"{task.name} drawn"] += int(drawn.sum())
    findings.sums[f"{task.name} without"] += not drawn.any()


def examine_numbers(task: Task, label: np.ndarray, paths: list[Path], findings: Findings) -> None:
    """Depth, and numbers or vectors of tasks that are not ours."""
    valid = label != IGNORE
    count_ignored(task.name, valid, findings)
    numbers = label[valid]
    if numbers.size:
        findings.values[task.name] = float(np.median(numbers))
        findings.sums[f"{task.name} far"] += int((numbers >= MAX_DEPTH).sum())

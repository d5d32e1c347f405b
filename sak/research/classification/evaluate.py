"""Frozen features of a student, and of teachers beside it, evaluated on a folder of classes.

FOLDER/train/CLASS/*.jpg is learnt from, FOLDER/val/CLASS/*.jpg evaluates: the layout of torchvision's ImageFolder.
"""

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor, nn
from torchvision.datasets import ImageFolder

from sak import tables
from sak.bundles.build import build_committee
from sak.bundles.bundle import find_bundle, load_bundle
from sak.data import SPLITS
from sak.data.discovery import is_hidden, suffix_of
from sak.data.images import CentreCrops
from sak.data.reading import SUFFIXES
from sak.errors import UserError
from sak.evaluation.distributed import build_accelerator
from sak.evaluation.sources import pooled
from sak.evaluation.subject import check_output
from sak.files import write_json, write_text
from sak.research.classification.classifiers import NEIGHBOURS, linear_probe, nearest_neighbours
from sak.research.probing.features import Features
from sak.student import Student
from teachers import Committee
from teachers.fingerprints import weights_hash

ALL = "all sources"
TEACHER = "teacher "
Result = dict[str, dict[str, float]]  # {source: {"knn", "linear"}} in percent


class Pooled(nn.Module):
    """Images (B, 3, H, W) -> one (B, D, 1, 1) per source: the mean token of its last level."""

    def __init__(self, student: Student, committee: Committee | None):
        super().__init__()
        self.student, self.committee = student, committee

    def named(self, images: Tensor) -> dict[str, Tensor]:
        """{source: (B, D)}"""
        found = pooled(self.student, images)
        teachers = self.committee(images) if self.committee else {}
        return found | {f"{TEACHER}{name}": levels[-1].mean((2, 3)) for name, levels in teachers.items()}

    def forward(self, images: Tensor) -> list[Tensor]:
        return [vectors[..., None, None] for vectors in self.named(images).values()]


def classify(
    place: str,
    folder: Path,
    output: Path,
    config: DictConfig | None = None,
    image_size: tuple[int, int] | None = None,
    batch_size: int = 32,
    workers: int = 2,
) -> Path:
    """Top-1 accuracy of each source of a student by its nearest neighbours and by a linear probe, as a table.

    `output` gets classification.md and classification.json. The features are kept there until both are written, so that
    an interrupted start goes on.

    Args:
        place: a run or a bundle, with heads or without.
        config: whose teachers are evaluated beside the student; None: none are.
        image_size: (H, W) of the central crops; None: what the student was trained on.

    Raises:
        UserError: the student, the classes or their images cannot be had, or do not fit each other.
    """
    check_output(output)
    sets = {split: open_classes(folder / split) for split in SPLITS}
    classes = sets["train"].classes
    if strangers := sorted(set(sets["val"].classes) - set(classes)):
        raise UserError(f"{folder / 'val'} has the class {strangers[0]!r}, which {folder / 'train'} has not")
    labels = {
        split: torch.tensor([classes.index(found.classes[label]) for label in found.targets])
        for split, found in sets.items()
    }
    student = load_bundle(find_bundle(place))
    size = image_size or student.image_size
    try:
        student.stem.grid(*size)
    except ValueError as error:
        raise UserError(f"{place}: {error}") from None
    accelerator = build_accelerator()
    model = Pooled(student, build_committee(config) if config else None).to(accelerator.device).eval()
    images = {split: CentreCrops([Path(file) for file, _ in found.samples], size) for split, found in sets.items()}
    with torch.no_grad():
        drawn = model.named(torch.zeros(1, 3, *size, device=accelerator.device))
    widths = {name: vectors.shape[1] for name, vectors in drawn.items()}
    key = hashlib.sha256(repr([weights_hash(model), size, [found.samples for found in sets.values()]]).encode())
    features = Features(
        output / f"features-{key.hexdigest()[:8]}",
        [(width, 1, 1) for width in widths.values()],
        {split: len(found) for split, found in images.items()},
    )
    features.extract(model, images, batch_size, workers, accelerator, place)
    vectors = {
        split: dict(zip(widths, features.vectors(split).split(list(widths.values()), dim=1), strict=True))
        for split in SPLITS
    }
    for found in vectors.values():
        mine = [part for name, part in found.items() if not name.startswith(TEACHER)]
        if len(mine) > 1:
            found[ALL] = torch.cat([F.normalize(part, dim=1) for part in mine], dim=1)
    result = {}
    for name in vectors["train"]:
        data = (vectors["train"][name], labels["train"], vectors["val"][name], len(classes))
        evaluated = {"knn": nearest_neighbours(*data), "linear": linear_probe(*data)}
        result[name] = {how: 100 * (found == labels["val"]).float().mean().item() for how, found in evaluated.items()}
    commonest = labels["train"].bincount(minlength=len(classes)).argmax()
    constant = 100 * (labels["val"] == commonest).float().mean().item()
    counts = {split: len(found) for split, found in images.items()}
    found = {"student": place, "classes": classes, "images": counts, "constant": constant, "accuracy": result}
    write_json(output / "classification.json", found)
    write_text(output / "classification.md", as_markdown(found))
    features.delete()
    print(tables.console(rows(result, constant)))
    return output / "classification.md"


def open_classes(folder: Path) -> ImageFolder:
    """
    Raises:
        UserError: it is not there, or a class has no image.
    """
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}: images to learn from are in train/CLASS/, to evaluate in val/CLASS/"
        )
    try:
        return ImageFolder(str(folder), is_valid_file=lambda file: suffix_of(file) in SUFFIXES and not _hidden(file))
    except FileNotFoundError as error:  # torchvision's, of a class without images or a folder without classes
        raise UserError(f"{folder} is no folder of classes ({str(error).splitlines()[0].rstrip('.')})") from error


def _hidden(file: str) -> bool:
    return is_hidden(Path(file).name)


def rows(result: Result, constant: float) -> list[tuple[str, ...]]:
    """A header, and a row per source."""
    table: list[tuple[str, ...]] = [("source", "k-NN %", "linear %")]
    table += [(name, f"{found['knn']:.2f}", f"{found['linear']:.2f}") for name, found in result.items()]
    return [*table, ("best constant", f"{constant:.2f}", f"{constant:.2f}")]


def as_markdown(found: dict) -> str:
    counts = found["images"]
    lines = [
        f"# Classes from frozen features: {found['student']}",
        "",
        tables.markdown(rows(found["accuracy"], found["constant"])),
        "",
        f"Top-1 accuracy over {counts['val']:,} images of {len(found['classes']):,} classes, learnt from",
        f"{counts['train']:,}. A source's features are the mean token of its last level, of a central crop;",
        f"*{ALL}* are those of the student side by side, each of length 1. k-NN: {NEIGHBOURS} neighbours, weighted by",
        "their cosines. Linear: a logistic regression, its penalty chosen on a fifth of the images to learn from.",
        "*best constant*: the commonest class.",
    ]
    return "\n".join(lines) + "\n"

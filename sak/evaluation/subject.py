"""What can be evaluated: a run, a bundle, or a checkpoint of the published code; and on which data."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from omegaconf import OmegaConf

from sak import config as configuration
from sak import data
from sak.bundles.bundle import find_bundle, load_bundle
from sak.bundles.official import load_official
from sak.config.derived import evaluation_batch
from sak.config.schema import DataConfig
from sak.errors import UserError
from sak.student import Student
from sak.student.hub import CONFIG, HUB_ID


@dataclasses.dataclass
class Subject:
    """
    Attributes:
        name: as it was given.
        student: with at least one head.
        data: where the images are, their size, and the student's tasks.
        batch_size: images per forward pass.
        precision: of the forward pass, ``fp32``, ``bf16`` or ``fp16``.
    """

    name: str
    student: Student
    data: DataConfig
    batch_size: int = 8
    precision: str = "fp32"


def open_subject(
    place: str,
    dataset: str | None = None,
    root: str | None = None,
    image_size: tuple[int, int] | None = None,
    num_heads: int | None = None,
    labelled: bool = True,
) -> Subject:
    """Load a student, and find out what it is to be evaluated on.

    Args:
        place: a run directory; a bundle, or its id on the hub; or a checkpoint file of the published SAK code.
        dataset: a benchmark; unless given, that of the run, or the one whose tasks and channels the student has.
        root: of the data set; unless given, that of the run.
        image_size: (H, W); unless given, that of training.
        num_heads: of a checkpoint's stem, see ``load_official``.
        labelled: False where the student is to see images without a data set's labels, of which nothing is asked then.

    Raises:
        UserError: there is no student at `place`, it does not fit the arguments, or more must be said.
    """
    path = Path(place)
    if root is not None and not Path(root).is_dir():  # nor is it rendered: whoever names a place means what is there
        raise UserError(f"--data is {root}, but there is no such directory")
    if (path / "config.yaml").is_file():
        found = _run(path, dataset, root)
    else:
        if (path / "config.json").is_file() or (not path.exists() and HUB_ID.fullmatch(place)):
            student = load_bundle(place)
        elif path.is_file():
            student = load_official(path, image_size, dataset, num_heads)
        else:
            raise UserError(
                f"{place} is no run directory (with config.yaml), no bundle (with config.json), and no checkpoint file"
            )
        # What is not given is found out, or complained of, below.
        found = Subject(place, student, DataConfig(dataset=dataset, root=root))  # type: ignore[arg-type]
    student = found.student
    if not student.channels:
        raise UserError(f"{place} has no task heads (it was distilled only), so that there is nothing to evaluate")
    found.data.tasks = [student.descriptions.get(name, {}).get("task", name) for name in student.channels]
    if found.data.dataset and data.class_of(found.data.dataset).FROM_CONFIG:
        named = {name: said["classes"] for name, said in student.descriptions.items() if "classes" in said}
        found.data.classes = {**named, **found.data.classes}  # which may have stood beside the training's data
    if labelled:
        found.data.dataset = found.data.dataset or _only_fitting(place, student)
        if not found.data.root:
            raise UserError(f"say where {found.data.dataset} lies: --data ROOT")
        _check_fitting(place, student, found.data)
    found.data.image_size = list(image_size or student.image_size)
    try:
        student.stem.grid(*found.data.image_size)
    except ValueError as error:
        raise UserError(f"{place}: {error}") from None
    return found


def _run(path: Path, dataset: str | None, root: str | None) -> Subject:
    config = configuration.load(path / "config.yaml")
    bundle = find_bundle(path)
    if dataset not in (None, config.data.dataset) and root is None:
        raise UserError(f"{path} was trained on {config.data.dataset}: say where {dataset} lies with --data ROOT")
    found = cast(DataConfig, OmegaConf.to_object(config.data))
    if dataset not in (None, found.dataset):  # what the config says of its own data is not about that one
        found = dataclasses.replace(found, classes={}, colours={}, images=None, labels={}, lists=None, splits={})
    found.dataset, found.root = dataset or found.dataset, root or found.root
    found.crop_by_semseg = False  # which is of training
    return Subject(str(path), load_bundle(bundle), found, evaluation_batch(config), config.precision)


def _has(student: Student) -> str:
    return ", ".join(f"{task}: {count}" for task, count in student.channels.items())


def _only_fitting(place: str, student: Student) -> str:
    """The only benchmark with the student's tasks and channels."""
    benchmarks = data.fitting(student.channels)
    if len(benchmarks) == 1:
        return benchmarks[0]
    which = f"fit {' and '.join(benchmarks)} alike" if benchmarks else "fit no known data set"
    raise UserError(f"the tasks and channels of {place} ({_has(student)}) {which}: name the data set with --dataset")


def _check_fitting(place: str, student: Student, settings: DataConfig) -> None:
    """
    Raises:
        UserError: the data set does not have the student's tasks and channels.
    """
    if not data.kind_of(settings).DESCRIPTION.has(student.channels):
        raise UserError(f"the tasks and channels of {place} ({_has(student)}) are not those of {settings.dataset}")


def default_output(place: str, kind: str = "evaluation") -> Path:
    """Where the results on a student go unless told: to ``kind`` in its run, else to ``kind/<its own path or id>``.

    A path beneath the working directory is taken from there, any other one from the root of the file system.
    """
    path = Path(place)
    if (path / "config.yaml").is_file():
        return path / kind
    whole = path.resolve()
    if not path.exists():
        return Path(kind, place.strip("/"))  # on the hub
    return Path(kind, whole.relative_to(Path.cwd() if whole.is_relative_to(Path.cwd()) else whole.anchor))


def check_output(output: Path, replaced: Sequence[str] = (), proof: str = "") -> None:
    """Before anything is written to `output`.

    Args:
        replaced: what the results take the place of, if it is there.
        proof: the file that an earlier start leaves beside them.

    Raises:
        UserError: it is a run or a bundle itself, or what would be replaced is of somebody else.
    """
    if any((output / name).is_file() for name in ("config.yaml", CONFIG)):
        raise UserError(f"{output} is a run or a bundle itself: choose another --output")
    there = [name for name in replaced if (output / name).exists()]
    if there and not (output / proof).is_file():
        raise UserError(f"{output / there[0]} is in the way, and not of an earlier start: choose another --output")

"""Paths as parts: one teacher's adapter path as a file of its own, to keep, to hand on and to put into a student.

A path reads the stem's tokens, and is worth nothing on another stem: the file holds a fingerprint of its own one. It is
a safetensors file of the path's weights; its metadata has a JSON object, `PathRecord`, under the key "sak_path".
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import safetensors.torch
from omegaconf import DictConfig, OmegaConf
from safetensors import safe_open
from torch import Tensor, nn

from sak import tables
from sak.bundles.bundle import find_bundle, load_student, save_bundle
from sak.config.schema import plain
from sak.errors import UserError
from sak.files import replacing
from sak.student import AdapterPath, Student
from sak.student.growth import replace_path
from sak.tensors import writing_safetensors
from teachers.fingerprints import weights_hash
from teachers.weights import local, sha256_of

KEY = "sak_path"


@dataclasses.dataclass
class PathRecord:
    """What a path is of, and what it fits.

    Attributes:
        teacher: its name.
        dims: the teacher's width D_t at each level.
        aligner: where it has aligners, as of ``AdapterPath``.
        levels: the stem's blocks after which features are taken.
        width: D of the stem.
        depth: the number of the stem's blocks.
        ratio: D divided by the adapters' inner width.
        norm: whether it has a LayerNorm at each level.
        stem: the stem's name in timm.
        fingerprint: of the stem's weights.
        spec: how the config of the run described the teacher, where there was one.
        weights_sha256: of the teacher's file of weights, where it was at hand.
    """

    teacher: str
    dims: list[int]
    aligner: bool | None
    levels: list[int]
    width: int
    depth: int
    ratio: int
    stem: str
    fingerprint: str
    spec: dict | None = None
    weights_sha256: str | None = None
    norm: bool = True


def fingerprint(student: Student) -> str:
    """SHA-256 of the stem's weights but the position embedding, which takes the grid of the images that it sees."""
    vit = student.stem.vit
    parts = nn.ModuleDict({"patch_embed": vit.patch_embed, "norm_pre": vit.norm_pre, "blocks": vit.blocks})
    parts.register_parameter("cls_token", vit.cls_token)
    return weights_hash(parts)


def adapter_paths(student: Student) -> list[str]:
    """The teachers that have one."""
    return [name for name, path in student.paths.items() if isinstance(path, AdapterPath)]


def record_of(student: Student, teacher: str) -> PathRecord:
    """
    Raises:
        UserError: the student has no adapter path of this teacher.
    """
    if teacher not in (known := adapter_paths(student)):
        raise UserError(
            f"the student has no adapter path of a teacher {teacher!r}; it has those of: {', '.join(known) or 'none'}"
        )
    return PathRecord(
        teacher=teacher,
        dims=list(dict(student.settings["teachers"])[teacher]),
        aligner=student.aligners[teacher],
        levels=list(student.levels),
        width=student.stem.width,
        depth=student.stem.depth,
        ratio=student.settings["adapter_ratio"],
        stem=student.stem.name,
        fingerprint=fingerprint(student),
        norm=student.settings["path_norm"],
    )


def list_paths(place: str | os.PathLike) -> list[PathRecord]:
    """Of a path file, a run or a bundle.

    Raises:
        UserError: there is none of these.
    """
    if Path(place).is_file():
        return [read_path(place)[0]]
    student = load_student(find_bundle(place))
    return [_with_teacher(record_of(student, name), place) for name in adapter_paths(student)]


def save_path(place: str | os.PathLike, teacher: str, file: str | os.PathLike) -> PathRecord:
    """Write the path of one teacher of a run or a bundle into a file.

    Raises:
        UserError: there is no student or no such path, or the file exists.
    """
    if Path(file).exists():
        raise UserError(f"{file} exists already: choose another file, or remove it")
    student = load_student(find_bundle(place))
    record = _with_teacher(record_of(student, teacher), place)
    tensors = {key: value.contiguous() for key, value in student.paths[teacher].state_dict().items()}
    with replacing(file) as partial, writing_safetensors(file):
        safetensors.torch.save_file(tensors, partial, {KEY: json.dumps(dataclasses.asdict(record))})
    return record


def read_path(file: str | os.PathLike) -> tuple[PathRecord, dict[str, Tensor]]:
    """The record and the weights of a path file.

    Raises:
        UserError: it is none, or corrupt.
    """
    if not Path(file).is_file():
        raise UserError(f"there is no path file at {file}")
    open(file, "rb").close()  # safetensors says of every file that cannot be opened that there is none
    try:
        with safe_open(file, framework="pt") as content:
            metadata = content.metadata() or {}
            tensors = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118  (it is no dict)
        return PathRecord(**json.loads(metadata[KEY])), tensors
    except (OSError, ValueError, TypeError, KeyError, safetensors.SafetensorError) as error:
        reason = "it has no record of a path" if isinstance(error, (KeyError, TypeError)) else str(error)
        raise UserError(f"{file} cannot be read as a path ({reason}): tools/paths.py save writes them") from error


def check_fits(record: PathRecord, student: Student, file: str | os.PathLike) -> None:
    """
    Raises:
        UserError: the path has grown on another stem, or is built otherwise.
    """
    ours = {
        "width": student.stem.width,
        "depth": student.stem.depth,
        "levels": list(student.levels),
        "ratio": student.settings["adapter_ratio"],
        "norm": student.settings["path_norm"],
    }
    for name, value in ours.items():
        if getattr(record, name) != value:
            raise UserError(f"{file}: the path has {name} {getattr(record, name)}, but this student {value}")
    own = fingerprint(student)
    if record.fingerprint != own:
        raise UserError(
            f"{file}: the path of {record.teacher} has grown on another stem ({record.stem}, fingerprint "
            f"{record.fingerprint[:12]}) than this student's ({student.stem.name}, {own[:12]}): distil one on this stem"
        )


def start_path(student: Student, teacher: str, file: str | os.PathLike) -> None:
    """Give a student's path the weights of a file. Aligners that the file lacks stay as they are.

    Raises:
        UserError: the file is no path, or does not fit.
    """
    record, tensors = read_path(file)
    check_fits(record, student, file)
    _check_dims(record, dict(student.settings["teachers"])[teacher], f"teacher {teacher}", file)
    path = student.paths[teacher]
    state = path.state_dict()
    path.load_state_dict({**state, **{key: value for key, value in tensors.items() if key in state}}, strict=True)


def swap_path(place: str | os.PathLike, file: str | os.PathLike, output: str | os.PathLike) -> Student:
    """Write the student of a run or a bundle, with the path of a file in place of its own of that teacher.

    Routers and heads stay as they are.

    Raises:
        UserError: the file does not fit, the student has no path of its teacher, or `output` exists.
    """
    if Path(output).exists():
        raise UserError(f"{output} exists already: choose another place for the bundle, or remove it")
    student = load_student(find_bundle(place))
    record, tensors = read_path(file)
    own = record_of(student, record.teacher)
    check_fits(record, student, file)
    _check_dims(record, own.dims, f"that of {record.teacher} in {place}", file)
    path = AdapterPath(own.width, own.depth, own.levels, record.dims, own.ratio, record.aligner, own.norm)
    try:
        path.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise UserError(f"{file} is corrupt: {str(error).splitlines()[1].strip()}") from error
    swapped = replace_path(student, record.teacher, path, record.dims, record.aligner)
    save_bundle(swapped, output, keep_aligners=True)
    return swapped


def console(records: Sequence[PathRecord]) -> str:
    """A line for each path, below a header."""
    rows = [("teacher", "widths", "aligned", "ratio", "levels", "stem", "fingerprint", "teacher's weights")]
    for record in records:
        rows.append(
            (
                record.teacher,
                " ".join(map(str, record.dims)),
                {None: "where widths differ", True: "yes", False: "no"}[record.aligner],
                str(record.ratio),
                " ".join(map(str, record.levels)),
                record.stem,
                record.fingerprint[:12],
                (record.weights_sha256 or "unknown")[:12],
            )
        )
    return tables.console(rows)


def _check_dims(record: PathRecord, dims: Sequence[int], of: str, file: str | os.PathLike) -> None:
    if record.dims != list(dims):
        raise UserError(f"{file}: the path's teacher has the widths {record.dims}, but {of} {list(dims)}")


def _with_teacher(record: PathRecord, place: str | os.PathLike) -> PathRecord:
    """The record with what the run's config tells of the teacher."""
    spec = _spec(Path(place) / "config.yaml", record.teacher)
    try:
        sha256 = sha256_of(local(spec["weights"], record.teacher)) if spec and spec["weights"] else None
    except UserError:
        sha256 = None  # another folder or machine, or untrained
    return dataclasses.replace(record, spec=spec, weights_sha256=sha256)


def _spec(config_file: Path, teacher: str) -> dict | None:
    if not config_file.is_file():
        return None
    return plain(cast(DictConfig, OmegaConf.load(config_file))).get("teachers", {}).get(teacher)

"""Students as bundles: directories of config.json and model.safetensors that ``Student.from_pretrained`` reads."""

import contextlib
import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from huggingface_hub import hf_hub_download

from sak.errors import UserError
from sak.files import read_json, replacing_directory
from sak.student import BundleError, Student
from sak.student.growth import fold
from sak.student.hub import CONFIG, asked_only_if_reachable
from sak.tensors import writing_safetensors


def find_bundle(place: str | os.PathLike) -> Path:
    """The bundle at `place`: itself, or what a finished run there has left.

    Raises:
        UserError: there is none, or the run is unfinished.
    """
    candidates = (Path(place) / "student", Path(place))
    bundle = next((path for path in candidates if (path / CONFIG).is_file()), None)
    if bundle is None and (Path(place) / "config.yaml").is_file():
        raise UserError(
            f"{place} is unfinished: it has no student/ yet; the command that started it goes on where it stopped"
        )
    if bundle is None:
        raise UserError(f"there is no student at {place}: give a finished run or a bundle")
    return bundle


def load_bundle(source: str | Path) -> Student:
    """The student of a bundle, or of its id on the hub, in eval mode; of a backbone with heads, that one.

    Raises:
        UserError: it cannot be had, or is corrupt.
    """
    try:
        with contextlib.redirect_stdout(None):  # the hub's client announces what it does
            return _kind(source).from_pretrained(source).eval()
    except BundleError as error:
        raise UserError(str(error)) from error


def load_student(source: str | Path) -> Student:
    """As `load_bundle`, for what needs paths or a stem of our own.

    Raises:
        UserError: it cannot be had, or is a backbone with heads.
    """
    student = load_bundle(source)
    if type(student) is not Student:
        from sak.adaptation import Adapted  # only now: it loads the teachers

        adapted = cast(Adapted, student)
        raise UserError(
            f"{source} is the backbone {adapted.backbone.name} with heads ({adapted.method}), but a student is needed "
            "here"
        )
    return student


def _kind(source: str | Path) -> type[Student]:
    """What is in a bundle, as its config.json has it; a student where that cannot be had, which reading it will say."""
    with contextlib.suppress(Exception):  # of json, the hub and its client
        if os.path.isdir(source):
            file = os.path.join(source, CONFIG)
        else:
            with asked_only_if_reachable():
                file = hf_hub_download(str(source), CONFIG)
        if "backbone" in read_json(Path(file)):
            from sak.adaptation import Adapted  # only now: it loads the teachers

            return Adapted
    return Student


def save_bundle(
    student: Student, path: str | os.PathLike, keep_aligners: bool = False, record: Mapping[str, object] | None = None
) -> None:
    """Write the student, in place of what is at `path`; the directory appears whole or not at all.

    Args:
        keep_aligners: whether to keep what only distillation needs.
        record: {file name: content} of further JSON files in the bundle.

    Raises:
        OSError: it cannot be written, as on a full disk.
    """
    bundle = copy.deepcopy(student).cpu()
    fold(bundle)
    if not keep_aligners:
        bundle.drop_aligners()
    with replacing_directory(path) as partial, writing_safetensors(path):
        bundle.save_pretrained(partial)
        for name, content in (record or {}).items():
            (partial / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

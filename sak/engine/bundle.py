"""Students as bundles: directories of config.json and model.safetensors that ``Student.from_pretrained`` reads."""

import copy
import os
import shutil
from pathlib import Path

from sak.student import Student


def save_bundle(student: Student, path: str | os.PathLike, keep_aligners: bool = False) -> None:
    """Write the student, in place of what is at `path`; the directory appears whole or not at all.

    Args:
        keep_aligners: whether to keep what only distillation needs.
    """
    bundle, path = copy.deepcopy(student).cpu(), Path(path)
    if not keep_aligners:
        bundle.drop_aligners()
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        bundle.save_pretrained(beside)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)

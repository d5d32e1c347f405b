"""Students as bundles: directories of config.json and model.safetensors that ``Student.from_pretrained`` reads."""

import copy
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError

from sak.errors import UserError
from sak.student import Student


def save_bundle(
    student: Student, path: str | os.PathLike, keep_aligners: bool = False, record: Mapping[str, object] | None = None
) -> None:
    """Write the student, in place of what is at `path`; the directory appears whole or not at all.

    Args:
        keep_aligners: whether to keep what only distillation needs.
        record: {file name: content} of further JSON files in the bundle.

    Raises:
        UserError: it cannot be written, as on a full disk.
    """
    bundle, path = copy.deepcopy(student).cpu(), Path(path)
    if not keep_aligners:
        bundle.drop_aligners()
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        bundle.save_pretrained(beside)
        for name, content in (record or {}).items():
            (beside / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(path, ignore_errors=True)
        os.replace(beside, path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be written ({error}): make room on its disk, and start again") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)

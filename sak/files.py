"""Files that appear whole or not at all."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it is flushed to disk and renamed over `path` if the block succeeds.

    A reader, or a run that was killed, never sees a half-written file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partial(directory: str | os.PathLike) -> None:
    """Delete what killed writers left beside the files of a directory, where no other process may be writing."""
    for left in Path(directory).glob(".*.partial"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def write_text(path: str | os.PathLike, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, content: object) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")

"""Files and directories that appear whole or not at all, and errors that say where they happened."""

import contextlib
import json
import os
import platform
import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sak.errors import UserError

PARTIAL, REPLACED = ".partial", ".replaced"  # how the hidden names beside a file or directory end
MACHINE = f"{zlib.crc32(platform.node().encode()):08x}-"  # on a network file system numbers of processes are no names


@contextlib.contextmanager
def about(path: str | os.PathLike, partial: Path | None = None) -> Iterator[None]:
    """An OSError of the block that names no file, as of a write to a full disk, gets the name of this one.

    One over a connection, as of a worker process that was killed, is about no file.

    Args:
        partial: a hidden file or directory that stands in for it, whose name nobody knows.
    """
    try:
        yield
    except OSError as error:
        nameless = error.filename is None and not isinstance(error, ConnectionError)
        if nameless or (partial is not None and str(error.filename) == str(partial)):
            error.filename = str(path)
        raise


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it is flushed to disk and renamed over `path` if the block succeeds.

    A reader, or a run that was killed, never sees a half-written file. Its permissions are what the umask leaves.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    with about(path, partial):
        try:
            mode = _mode_of_new_file(partial)
            yield partial
            partial.chmod(mode)
            _sync(partial)
            os.replace(partial, path)
            _sync(path.parent)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()


@contextlib.contextmanager
def replacing_directory(path: str | os.PathLike) -> Iterator[Path]:
    """The same for a directory: yield an empty one beside `path` to fill, which takes its place."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    with about(path, partial):
        try:
            mode = _mode_of_new_file(partial)
            partial.unlink()
            partial.mkdir()
            yield partial
            for place, _, names in os.walk(partial):
                for file in (Path(place, name) for name in names):
                    file.chmod(mode)
                    _sync(file)
                _sync(Path(place))
            put_in_place(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def put_in_place(new: Path, path: Path) -> None:
    """Let a directory, on the same disk, take the place of another one.

    No system call replaces a directory that is not empty. The old one is set aside before the new one takes its place,
    and `tidy` brings it back where a kill came between.
    """
    replaced = path.with_name(f".{path.name}{REPLACED}")
    _settle(replaced)
    if path.is_dir():
        os.replace(path, replaced)
    os.replace(new, path)
    _sync(path.parent)
    _settle(replaced)


def tidy(directory: str | os.PathLike) -> None:
    """Remove what killed writers left beside the files of a directory, where no other process may be writing.

    A directory that was set aside for one that never took its place comes back.
    """
    for replaced in Path(directory).glob(f".*{REPLACED}"):
        _settle(replaced)
    for left in Path(directory).glob(f".*{PARTIAL}"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def write_text(path: str | os.PathLike, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, content: object) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: str | os.PathLike, keys: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON object in a file that this package has written.

    Args:
        keys: that it must have.

    Raises:
        UserError: it holds something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is corrupt (it is no JSON: {error}): delete it, or restore it") from error
    lacking = [key for key in keys if not isinstance(content, dict) or key not in content]
    if lacking or not isinstance(content, dict):
        reason = f"it has no {lacking[0]!r}" if lacking else "it is no JSON object"
        raise UserError(f"{path} is corrupt ({reason}): delete it, or restore it")
    return content


def shipped(folder: str) -> Path:
    """A folder that comes with this package: inside of it where it was installed, beside it in a checkout."""
    package = Path(__file__).parent
    return package / folder if (package / folder).is_dir() else package.parent / folder


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{MACHINE}{os.getpid()}{PARTIAL}")


def _mode_of_new_file(path: Path) -> int:
    """Make the file, and say which permissions it got; who writes through a private temporary one changes them."""
    path.touch()
    return path.stat().st_mode & 0o777


def _sync(path: Path) -> None:
    """Wait until a file's content, or a directory's list of names, is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _settle(replaced: Path) -> None:
    """End the replacement for which a directory was set aside: it is removed, or comes back if nothing replaced it."""
    if not replaced.is_dir():
        return
    path = replaced.with_name(replaced.name.removeprefix(".").removesuffix(REPLACED))
    if not path.exists():
        os.replace(replaced, path)
    elif replaced.is_symlink():
        replaced.unlink()
    else:
        shutil.rmtree(replaced)

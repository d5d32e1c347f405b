"""Lists of ids: one a line, in whatever form text editors and other systems leave them."""

import codecs
import re
from collections.abc import Callable
from pathlib import Path, PurePath

from sak.data.reading.faults import FaultyFile, naming
from sak.data.reading.pixels import SUFFIXES

# The longer marks first: that of UTF-16 begins that of UTF-32.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


def read_ids(path: Path, is_there: Callable[[str], bool] = lambda name: False, folders: bool = False) -> list[str]:
    """The ids of a list, one a line, in its order; without blanks around them, and without empty lines.

    Read as meant: UTF-8, and UTF-16 or UTF-32 with their mark; the line ends of all systems; an image's suffix behind
    an id, if there is no image of an id with it.

    Args:
        is_there: whether there is an image of the id.
        folders: whether an id may be a path below a folder, as in `berlin/000001`.

    Raises:
        FaultyFile: the list cannot be read, a line of it is no id, or it has none. The line is named.
    """
    with naming(path):
        content = path.read_bytes()
    text = _decoded(content, path)
    ids = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        name = line.strip("\ufeff \t\v\f\xa0\x1a")  # marks of joined files, blanks, the end that old editors write
        if not name:
            continue
        if not name.isprintable() or "\\" in name or ("/" in name and not (folders and _is_below(name))):
            what = "a path" if name.isprintable() else "which is no text that could name a file"
            raise FaultyFile(
                f"{path}, line {number}, is {name[:80]!r}, {what}: write one id a line, without folder and suffix.",
                kind="list",
            )
        suffix = PurePath(name).suffix
        stem, suffix = name.removesuffix(suffix), suffix.lower()
        ids.append(stem if suffix in SUFFIXES and not is_there(name) else name)
    if not ids:
        raise FaultyFile(f"{path} lists no image: restore it from the archive.", kind="list")
    return ids


def _is_below(path: str) -> bool:
    """Whether a path stays below the folder that it is taken from."""
    return not path.startswith("/") and ".." not in path.split("/")


def _decoded(content: bytes, path: Path) -> str:
    encoding = next((encoding for mark, encoding in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        number = 1 + content[: error.start].count(b"\n")
        raise FaultyFile(
            f"{path}, line {number}, is no {encoding.removesuffix('-sig').upper()}: save the list as UTF-8.",
            kind="list",
        ) from error

"""Passages of a folder of text files: only where they lie is kept, and they are read when they are asked for."""

import os
import re
from pathlib import Path

import numpy as np

from sak.data.reading import FaultyFile, naming
from sak.errors import UserError
from sak.vocabulary.data.words import HELD_OUT, is_held_out

_BREAK = re.compile(rb"\r?\n[ \t]*\r?\n\s*")  # an empty line ends a passage


class Passages:
    """The passages of train, or of val, in the order of the files' names: one in ten by its text belongs to val.

    Raises:
        UserError: there is no such folder, it has no text, or none for this split.
        FaultyFile: a file is no UTF-8.
    """

    def __init__(self, folder: str | os.PathLike, val: bool):
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise UserError(f"{root} is no folder: set vocabulary.data.pages.texts to one of .txt files")
        self.files = sorted(file for file in root.rglob("*.txt") if file.is_file())
        if not self.files:
            raise UserError(f"{root} has no .txt file: set vocabulary.data.pages.texts to a folder of texts")
        places = []
        for number, file in enumerate(self.files):
            with naming(file):
                content = file.read_bytes()
            start = 0
            for end, following in [*((m.start(), m.end()) for m in _BREAK.finditer(content)), (len(content), 0)]:
                text = _normal(content[start:end], file)
                if text and is_held_out(text) == val:
                    places.append((number, start, end))
                start = following
        if not places:
            raise UserError(
                f"{root} has no passage for {'val' if val else 'train'}: of the passages between empty lines one in "
                f"{HELD_OUT} belongs to val; add texts"
            )
        self.places = np.array(places, np.int64)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> str:
        """One passage, its lines joined by single spaces."""
        number, start, end = self.places[index].tolist()
        file = self.files[number]
        with naming(file), file.open("rb") as opened:
            opened.seek(start)
            content = opened.read(end - start)
        return _normal(content, file)


def _normal(content: bytes, file: Path) -> str:
    try:
        return " ".join(content.decode("utf-8").lstrip("\ufeff").split())
    except UnicodeDecodeError as error:
        raise FaultyFile(f"{file} is no text in UTF-8 ({error.reason}): convert it.") from error

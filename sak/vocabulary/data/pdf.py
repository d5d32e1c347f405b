"""Pages of PDF files: the picture that pypdfium2 renders, and the text layer as the answer."""

import os
from pathlib import Path

import numpy as np

from sak.data.reading import FaultyFile, naming
from sak.errors import UserError
from sak.vocabulary.data.source import Drawn
from sak.vocabulary.data.words import HELD_OUT, is_held_out
from sak.vocabulary.pictures import square
from sak.vocabulary.prompts import READ


class PdfPages:
    """Pages of train, or of val: one page in ten, by file and number. Those without text are passed over.

    Args:
        side: pixels; the page's longer side is rendered so large, and the page then resized to a square.

    Raises:
        UserError: pypdfium2 is not there, there is no such folder, it has no PDF file, or no page for this split.
    """

    def __init__(self, folder: str | os.PathLike, side: int, val: bool):
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise UserError(f"{root} is no folder: set vocabulary.data.pdfs to one of PDF files")
        self.files = sorted(file for file in root.rglob("*") if file.suffix.lower() == ".pdf" and file.is_file())
        if not self.files:
            raise UserError(f"{root} has no .pdf file: set vocabulary.data.pdfs to a folder of PDF files")
        self.side = side
        places = [
            (number, page)
            for number, file in enumerate(self.files)
            for page in range(_pages(file))
            if is_held_out(f"{file.relative_to(root).as_posix()} {page}") == val
        ]
        if not places:
            raise UserError(
                f"no page of {root} is {'val' if val else 'train'}'s: one in {HELD_OUT} belongs to val; add files"
            )
        self.places = np.array(places, np.int64)

    def __len__(self) -> int:
        return len(self.places)

    def sample(self, number: int, rng: np.random.Generator) -> Drawn:
        for further in range(len(self)):
            file, page = self.places[(number + further) % len(self)].tolist()
            image, text = read_page(self.files[file], page, self.side)
            if text:
                return Drawn(square(image, self.side), READ, text)
        raise UserError(
            f"no page of {self.files[0].parent} has a text layer: vocabulary.data.pdfs needs files that hold their text"
        )


def read_page(file: Path, number: int, side: int) -> tuple[np.ndarray, str]:
    """(uint8 (H, W, 3) whose longer side is `side`, the text layer with its line breaks).

    Raises:
        FaultyFile: the file cannot be read.
    """
    with naming(file), _opened(file) as document:
        page = document[number]
        scale = side / max(page.get_size())
        image = page.render(scale=scale, rev_byteorder=True).to_numpy()[..., :3]
        text = page.get_textpage().get_text_bounded()
        return np.array(image), "\n".join(line for line in map(str.strip, text.splitlines()) if line)


def _pages(file: Path) -> int:
    with naming(file), _opened(file) as document:
        return len(document)


def _opened(file: Path):
    try:
        import pypdfium2
    except ImportError as error:
        raise UserError("PDF pages are read by pypdfium2: pip install 'sak[vocabulary]'") from error
    try:
        return pypdfium2.PdfDocument(file)
    except pypdfium2.PdfiumError as error:
        raise FaultyFile(f"{file} is no PDF file that can be read ({error}): restore it, or take it out.") from error

"""Fonts to render pages with: DejaVu, which matplotlib brings along, Liberation where Debian has it, or one's own."""

import functools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

from sak.errors import UserError

BUNDLED = ("DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf")
LIBERATION = Path("/usr/share/fonts/truetype/liberation")
DEBIANS = ("LiberationSans-Regular.ttf", "LiberationSerif-Regular.ttf", "LiberationMono-Regular.ttf")


def find_fonts(files: Sequence[str] | None = None) -> list[str]:
    """Files of fonts: those given; of None the bundled ones, and Debian's where it has them.

    Raises:
        UserError: a file is no font.
    """
    if files is None:
        bundled = [str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)) for name in BUNDLED]
        return bundled + [str(LIBERATION / name) for name in DEBIANS if (LIBERATION / name).is_file()]
    for file in files:
        try:
            font(file, 12)
        except OSError as error:
            raise UserError(f"{file} is no font ({error}): name .ttf or .otf files in pages.fonts") from error
    if not files:
        raise UserError("vocabulary.data.pages.fonts is empty: name .ttf or .otf files, or leave it out")
    return list(files)


@functools.lru_cache(maxsize=1024)
def font(file: str, size: int) -> ImageFont.FreeTypeFont:
    # The basic layout, or pages would depend on whether a library for shaping is there.
    return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)


@functools.cache
def characters(file: str) -> frozenset[str]:
    """Those that a font can show."""
    return frozenset(map(chr, FT2Font(file).get_charmap()))

"""Lists of ids as editors and other systems leave them: read as meant, or the line is named."""

import shutil
from pathlib import Path

import pytest

from sak.data.pascal_context import PascalContext
from sak.data.reading import read_ids
from sak.errors import UserError
from sak.preflight.summary import REMEDIES
from sak.preflight.survey import Survey, list_names

ROOT = Path(__file__).parents[1] / "fixtures/pascal_format/PASCALContext"
IDS = ["2008_001000", "2008_001001"]
TEXT = "2008_001000\n2008_001001\n"

MEANT = {
    "as released": TEXT.encode(),
    "without a last line end": TEXT.strip().encode(),
    "Windows": TEXT.replace("\n", "\r\n").encode(),
    "old Macs": TEXT.replace("\n", "\r").encode(),
    "a mark": TEXT.encode("utf-8-sig"),
    "joined files": ("\ufeff2008_001000\n\ufeff2008_001001\n").encode(),
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16, big endian, Windows": b"\xfe\xff" + TEXT.replace("\n", "\r\n").encode("utf-16-be"),
    "UTF-32": TEXT.encode("utf-32"),
    "blanks": b"  2008_001000 \t\n\n\n2008_001001\xc2\xa0\n \n",
    "suffixes": b"2008_001000.jpg\n2008_001001.JPG\n",
    "suffixes of other kinds": b"2008_001000.png\r\n2008_001001.jpeg\r\n",
    "the end of DOS": TEXT.encode() + b"\x1a",
}


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copytree(ROOT, tmp_path / "PASCALContext"))


@pytest.mark.parametrize("form", MEANT)
def test_what_is_meant_is_read(copy, form):
    (copy / "ImageSets/Context/train.txt").write_bytes(MEANT[form])
    assert PascalContext(copy, "train").names == IDS


def test_ids_may_have_blanks_dots_and_any_letters(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("living room 3\nimg.v2\nGröße 日本\n{0}\na.jpg\n")
    assert read_ids(path) == ["living room 3", "img.v2", "Größe 日本", "{0}", "a"]


def test_an_id_with_a_suffix_of_its_own(copy):
    for folder, suffix in (("JPEGImages", "jpg"), ("semseg/VOC12", "png")):
        file = copy / folder / f"2008_001000.{suffix}"
        file.rename(file.with_name(f"my scan.png.{suffix}"))
    (copy / "ImageSets/Context/train.txt").write_text("my scan.png\n2008_001001.png")
    dataset = PascalContext(copy, "train", ["semseg"], image_size=(64, 96))
    assert dataset.names == ["my scan.png", "2008_001001"]
    assert dataset[0]["name"] == "my scan.png"


WRONG = {
    "a path": (b"2008_001000\nJPEGImages/2008_001001.jpg\n", "line 2, is 'JPEGImages/2008_001001.jpg', a path"),
    "a path of Windows": (b"2008_001000\r\nimages\\1\r\n", r"line 2, is 'images\\\\1', a path"),
    "columns": (b"2008_001000\t1\n", r"line 1, is '2008_001000\\t1', which is no text"),
    "a letter that is not seen": ("2008_001000\n2008\u200b_001001".encode(), "line 2, is '2008.u200b_001001'"),
    "UTF-16 without a mark": (TEXT.encode("utf-16-le"), r"line 1, is '2.x000"),
    "another encoding": (b"2008_001000\nGr\xf6\xdfe\n", "line 2, is no UTF-8: save the list as UTF-8"),
    "half a letter": (TEXT.encode("utf-16")[:-1], "is no UTF-16"),
    "a picture": (b"\x89PNG\r\n\x1a\n", "line 1, is no UTF-8"),
    "empty": (b"", "lists no image"),
    "blank": (b"\xef\xbb\xbf \r\n\n", "lists no image"),
}


@pytest.mark.parametrize("form", WRONG)
def test_a_line_that_is_no_id_is_named_by_readers_and_doctor(copy, form):
    content, words = WRONG[form]
    path = copy / "ImageSets/Context/train.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        PascalContext(copy, "train")
    assert str(path) in str(error.value)
    survey = Survey()
    list_names(PascalContext, copy, PascalContext.DESCRIPTION.splits, survey)
    assert str(error.value) in [problem.detail for problem in survey.problems]
    assert {problem.kind for problem in survey.problems} <= REMEDIES.keys()


def test_a_list_that_is_a_folder(copy):
    path = copy / "ImageSets/Context/train.txt"
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="is missing"):
        PascalContext(copy, "train")

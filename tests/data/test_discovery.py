"""What a folder or a pattern stands for: each file once, nothing that is no picture, and all else counted."""

import io
import os
import socket
import tarfile

import numpy as np
import pytest
from PIL import Image

from sak import config
from sak.bundles.build import build_training_set
from sak.data import discovery
from sak.data.discovery import expand, find_files, told
from sak.data.faulty_images import Skips
from sak.data.images import Images, find_images
from sak.data.loading import load
from sak.data.pascal_context import PascalContext
from sak.errors import UserError
from sak.preflight.survey import Survey, survey_images
from sak.research.routing.images import GivenImages


def picture(path, content=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        Image.fromarray(np.full((20, 20, 3), 99, np.uint8)).save(path, "PNG")
    else:
        path.write_bytes(content)
    return path


def found(folder):
    names, left_out = find_files(folder, {".jpg", ".png"})
    return names, dict(left_out)


def test_each_file_is_listed_once_whatever_links_lead_to_it(tmp_path):
    folder = tmp_path / "data" / "images"
    for name in ("a/1.jpg", "a/2.jpg", "b/3.png"):
        picture(folder / name)
    (folder / "a" / "up").symlink_to(folder)  # to the folder above it
    (folder / "itself").symlink_to(folder)
    (folder / "parent").symlink_to(tmp_path / "data")  # to what holds it all
    (folder / "0").symlink_to(folder / "a")  # another name, which comes first
    (folder / "2.jpg").symlink_to(folder / "a" / "2.jpg")
    names, left_out = found(folder)
    assert names == ["a/1.jpg", "a/2.jpg", "b/3.png"]
    assert left_out == {discovery.TWICE: 5}


def test_links_are_followed_to_what_is_elsewhere(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "images"
    for name in ("x/1.jpg", "x/deep/2.jpg", "3.jpg"):
        picture(outside / name)
    folder.mkdir()
    (folder / "b").symlink_to(outside / "x")
    (folder / "c").symlink_to(outside)  # which holds what b leads to, and this
    (outside / "back").symlink_to(outside)
    (folder / "a.jpg").symlink_to(outside / "3.jpg")  # the same as c/3.jpg, which is no link
    names, left_out = found(folder)
    assert names == ["b/1.jpg", "b/deep/2.jpg", "c/3.jpg"]
    assert left_out == {discovery.TWICE: 3}


def test_a_folder_of_links_to_files_alone(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(3):
        picture(tmp_path / "objects" / f"{number}")
        (tmp_path / "images" / f"{number}.jpg").symlink_to(tmp_path / "objects" / f"{number}")
    (tmp_path / "images" / "again.jpg").symlink_to("0.jpg")
    (tmp_path / "images" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "images" / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "images" / "folder").symlink_to(tmp_path / "moved")
    names, left_out = found(tmp_path / "images")
    assert names == ["0.jpg", "1.jpg", "2.jpg"]
    assert left_out == {discovery.TWICE: 1, discovery.BROKEN: 3}


def test_hard_links_are_files_of_their_own(tmp_path):
    os.link(picture(tmp_path / "a.jpg"), tmp_path / "b.jpg")
    assert found(tmp_path) == (["a.jpg", "b.jpg"], {})


@pytest.fixture
def mixed(tmp_path):
    """Two pictures among what systems, cameras and people put beside them."""
    for name in ("one.JPG", "deep/two.PnG"):
        picture(tmp_path / name)
    for name in ("._one.JPG", ".hidden.png", ".git/a.png", "@eaDir/one.JPG/thumb.jpg", "__MACOSX/one.jpg"):
        picture(tmp_path / name)
    for name in ("notes.txt", "clip.gif", "scan.TIF", "README"):
        (tmp_path / name).write_text("-")
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.png"))
    (tmp_path / "null.png").symlink_to("/dev/null")
    return tmp_path


LEFT_OUT = {
    discovery.HIDDEN: 5,
    ".txt": 1,
    ".gif": 1,
    ".tif": 1,
    "without suffix": 1,
    discovery.NO_FILE: 3,
}


def test_what_is_no_picture_is_counted(mixed):
    assert found(mixed) == (["deep/two.PnG", "one.JPG"], LEFT_OUT)


def test_what_is_left_out_is_told_by_all_who_look(mixed, tiny, capsys):
    words = told(find_images(mixed).left_out)
    assert words.startswith("left out: 5 hidden, 3 pipes or devices, 1 ")
    said = []
    settings = config.load(tiny, [f"stages.distill.images={mixed}"])
    assert len(build_training_set(settings, "distill", lambda: None, said.append)) == 2
    assert said == [f"{mixed}: 2 images; {words}"]
    assert len(GivenImages([str(mixed)], (32, 32))) == 2
    assert words in capsys.readouterr().out
    survey = Survey()
    assert survey_images(str(mixed), (32, 32), survey, None, 0, False) == 2
    assert survey.problems == []
    assert words in survey.facts[0][1]


def test_many_kinds_are_summed_up():
    counts = {f".{number}": 10 - number for number in range(10)}
    assert told(discovery.Counter(counts)) == "left out: 10 .0, 9 .1, 8 .2, 7 .3, 6 .4, 5 .5, 10 others"
    assert told(discovery.Counter()) == ""


def test_nothing_but_others_says_what_there_is(tmp_path):
    (tmp_path / "a.tiff").touch()
    with pytest.raises(UserError, match=r"holds no image .* and no tar; left out: 1 \.tiff: set it"):
        find_images(tmp_path)


def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path, monkeypatch):
    picture(tmp_path / "a" / "1.jpg")
    scandir = os.scandir

    def closed(place):
        if str(place).endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return scandir(place)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(UserError, match=f"^{tmp_path}/a cannot be read \\(Permission denied\\)"):
        find_images(tmp_path)


def test_a_pipe_in_an_archive_is_a_missing_file_and_not_waited_for(archive):
    path = archive / "JPEGImages" / "2008_001000.jpg"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"lacks 1 of its files, the first is .*JPEGImages/2008_001000\.jpg \(image\)"):
        PascalContext(archive, "train", ["semseg"])
    with pytest.raises(UserError, match="is no file"):
        GivenImages([str(path)], (32, 32))


def test_files_of_an_archive_may_have_suffixes_in_any_case(archive):
    before = PascalContext(archive, "train", image_size=(96, 96))[0]
    for folder, suffix in {"JPEGImages": "jpg", "sal_distill": "png", "human_parts": "mat"}.items():
        path = archive / folder / f"2008_001000.{suffix}"
        path.rename(path.with_suffix(f".{suffix.upper()}"))
    (archive / "human_parts" / "2008_001000.Mat").write_bytes(b"no MATLAB file")
    shutil_copy = archive / "human_parts" / "2008_001000.mat"  # of several ways to write it, the usual one counts
    shutil_copy.write_bytes((archive / "human_parts" / "2008_001000.MAT").read_bytes())
    after = PascalContext(archive, "train", image_size=(96, 96))[0]
    assert all((after[key] == before[key]).all() for key in (*PascalContext.TASKS, "image"))


# --- names that are no text -----------------------------------------------------------------------------------------


def test_names_that_are_no_utf8_can_be_skipped_and_told(tmp_path):
    folder = os.fsencode(tmp_path / "images")
    os.mkdir(folder)
    for name in (b"\xff\xe9.png", b"fine.png", b"s p a c e.png", "größe.png".encode()):
        with open(os.path.join(folder, name), "wb") as file:
            Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(file, "PNG")
    with open(os.path.join(folder, b"bad\xff.png"), "wb") as file:
        file.write(b"no picture")
    dataset = Images(find_images(tmp_path / "images"), (8, 8))
    skips = Skips(tmp_path / "run" / "skipped.txt", "distill", 5, 0.5, replaced=True)
    (batch,) = load(dataset, [range(5)], 0, skips=skips)
    assert set(batch["name"]) == {"fine", "größe", "s p a c e", "\\udcff\\udce9"}
    ((_, reason),) = skips.listed().items()
    assert "bad\\udcff.png is corrupt" in reason
    "".join(batch["name"]).encode("utf-8")  # fit for any file and any drawing


# --- patterns -------------------------------------------------------------------------------------------------------


def packed(path, names):
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(file, "PNG")
    with tarfile.open(path, "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(file.getvalue())
            archive.addfile(member, io.BytesIO(file.getvalue()))
    return path


@pytest.fixture
def shards(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        packed(tmp_path / "s" / f"train-{number:03d}.tar", [f"{number}.png"])
    packed(tmp_path / "s" / "extra.tar", ["extra.png"])
    packed(tmp_path / "s" / "odd{1,2}[a].tar", ["odd.png"])
    (tmp_path / "s" / "train-000.idx").touch()
    return tmp_path / "s"


@pytest.mark.parametrize(
    ("pattern", "stems"),
    [
        ("s/train-{000..002}.tar", "0 1 2"),
        ("s/train-{008..011}.tar", "8 9 10 11"),
        ("s/train-00{1,7}.tar", "1 7"),
        ("s/train-0{0{1,2},11}.tar", "1 2 11"),
        ("s/train-{003..004}.tar::s/extra.tar", "3 4 extra"),
        ("s/extra.tar::s/train-00[12].tar", "extra 1 2"),
        ("s/train-01*.tar", "10 11"),
        ("s/train-01?.tar", "10 11"),
        ("s/{extra,train-011}.tar", "extra 11"),
        ("~/s/train-{000..001}.tar", "0 1"),
        ("s/odd{1,2}[a].tar", "odd"),  # there is a file of this very name
        ("s/odd{1,2}[a].tar::~/s/extra.tar", "odd extra"),
        ("s/train-{000..001}.tar::", "0 1"),
    ],
)
def test_patterns_of_webdataset(shards, pattern, stems):
    assert [file.stem for file in find_images(pattern)] == stems.split()


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("s/none-*.tar", "stands for no file"),
        ("::", "stands for no file"),
        ("s/train-{5..3}.tar", "stands for no file"),
        ("s/{000..999999999999}.tar", "stands for more than 100,000 files"),
        ("s/{000..999999999999}*.tar", "stands for more than 100,000 files"),
        ("s/{0..999}{0..999}{0..999}.tar", "stands for more than 100,000 files"),
        ("{0..1}" * 2000, "stands for more than 100,000 files"),
        ("s/train-{000..013}.tar", "2 of 14 archives are missing, the first is s/train-012.tar"),
        ("s/train-{a..c}.tar", "1 of 1 archives are missing"),
        ("s/train-000.*", "stands for s/train-000.idx too, which is no tar"),
        ("s::s/extra.tar", "stands for s too, which is no tar"),
        ("https://host/a-{0..3}.zip", "https://host/a-0.zip is no tar: name tars behind addresses"),
        ("https://host/{0..999999}.tar", "stands for more than 100,000 files"),
        ("moon://bucket/a.tar", "moon://bucket/a.tar cannot be read here (Protocol not known: moon)"),
        ("pipe:aws s3 cp a.tar -", "is no place: name archives, where they lie or by an address"),
        ("nowhere", "is not a folder and no tar"),
        ("~/nowhere", "nowhere is not a folder and no tar"),
        ("a" * 5000 + ".tar", "1 of 1 archives are missing"),
    ],
)
def test_patterns_that_stand_for_no_images(shards, pattern, words):
    with pytest.raises(UserError) as error:
        find_images(pattern)
    assert words in str(error.value)


def test_a_pipe_is_no_archive(tmp_path):
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(UserError, match="1 of 1 archives are missing"):
        find_images(tmp_path / "a.tar")


def test_a_shard_without_images_is_told_and_the_others_count(shards):
    with tarfile.open(shards / "train-001.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("a.cls"))
    images = find_images("s/train-{000..002}.tar")
    assert [file.stem for file in images] == ["0", "2"]
    assert images[-1].read_bytes() == images[0].read_bytes()
    assert told(images.left_out) == "left out: 1 .cls, 1 archives without an image"


def test_what_else_is_in_a_tar_is_counted_too(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = packed(
        tmp_path / "a.tar", ["./a.png", "._a.png", "x/.hidden/b.png", "@eaDir/a.png/c.png", "../d.PNG", "e.txt"]
    )
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("f.png")
        link.type, link.linkname = tarfile.SYMTYPE, "a.png"
        archive.addfile(link)
    for _ in range(2):  # listed, and read from the list that was kept
        images = find_images(path)
        assert [file.name for file in images] == ["./a.png", "../d.PNG"]
        assert dict(images.left_out) == {"hidden": 3, ".txt": 1, "links": 1}


def test_a_home_in_the_config(archive, monkeypatch):
    monkeypatch.setenv("HOME", str(archive.parent))
    assert len(PascalContext(f"~/{archive.name}", "train")) == 2
    assert expand("~") == [archive.parent]

"""Pictures of every mode and depth: what each should look like, worked out from the numbers that were stored."""

import io
import shutil
import tarfile
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from sak.data.images import Images, find_images
from sak.data.pascal_context import PascalContext
from sak.data.reading import FaultyFile, read_image
from sak.errors import UserError
from sak.preflight.examination import examine_unlabelled
from sak.research.routing.images import GivenImages

ARCHIVE = Path(__file__).parents[1] / "fixtures/pascal_format/PASCALContext"
NAME, SIZE = "2008_001000", (60, 72)  # a ratio of which a crop can be the whole
rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
RAMP = (rows * SIZE[1] + columns) / (SIZE[0] * SIZE[1] - 1)  # 0 at the first pixel, 1 at the last
RAMP_8 = np.rint(255 * RAMP).astype(np.uint8)
RAMP_16 = np.rint(65535 * RAMP).astype(np.uint16)
COLOURS = np.stack([RAMP_8, RAMP_8[::-1], 255 - RAMP_8], axis=-1)


def three(grey):
    return np.stack([grey] * 3, axis=-1).astype(float)


def pillow(array, kind="PNG", mode=None, **options):
    file = io.BytesIO()
    Image.fromarray(array, mode).save(file, kind, **options)
    return file.getvalue()


def opencv(array, suffix):
    return cv2.imencode(suffix, array if array.ndim == 2 else np.ascontiguousarray(array[..., ::-1]))[1].tobytes()


def palette(indices, colours, **options):
    file, image = io.BytesIO(), Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette(np.array(colours, np.uint8).tobytes())
    image.save(file, "PNG", **options)
    return file.getvalue()


def with_alpha(colours, alpha):
    return np.concatenate([colours, np.broadcast_to(np.uint8(alpha), SIZE)[..., None]], axis=-1)


HALVES = (columns >= SIZE[1] // 2).astype(np.uint8)
RED_AND_BLUE = np.where(HALVES[..., None], [0, 0, 200], [200, 0, 0]).astype(float)

# name: (the file, what it shows in 0..255, by how much a rounding may be off)
SOUND = {
    "grey, 8 bits": (pillow(RAMP_8), three(RAMP_8), 0),
    "grey, 16 bits": (pillow(RAMP_16), three(255 * RAMP), 0.51),
    "grey, 16 bits, TIFF": (pillow(RAMP_16, "TIFF"), three(255 * RAMP), 0.51),
    "grey, 16 bits, big endian": (pillow(RAMP_16.astype(">u2"), "TIFF"), three(255 * RAMP), 0.51),
    "grey, 16 bits, black": (pillow(0 * RAMP_16), three(0 * RAMP), 0),
    "grey, 1 bit": (pillow(HALVES > 0), three(255 * HALVES), 0),
    "floats": (pillow(RAMP.astype(np.float32), "TIFF"), three(255 * RAMP), 0.51),
    "colours, 8 bits": (pillow(COLOURS), COLOURS.astype(float), 0),
    "colours, 16 bits": (opencv(COLOURS.astype(np.uint16) * 257, ".png"), COLOURS.astype(float), 0),
    "colours, 16 bits, TIFF": (opencv(COLOURS.astype(np.uint16) * 257, ".tiff"), COLOURS.astype(float), 0),
    "palette": (palette(HALVES, [(200, 0, 0), (0, 0, 200)]), RED_AND_BLUE, 0),
    "palette with a transparent entry": (
        palette(HALVES, [(200, 0, 0), (0, 0, 200)], transparency=0),
        np.where(HALVES[..., None], [0, 0, 200], [255, 255, 255]).astype(float),
        0,
    ),
    "opaque": (pillow(with_alpha(COLOURS, 255)), COLOURS.astype(float), 0),
    "half transparent": (pillow(with_alpha(COLOURS, 51)), 0.2 * COLOURS + 0.8 * 255, 1),
    "all transparent": (pillow(with_alpha(COLOURS, 0)), np.full((*SIZE, 3), 255.0), 0),
    "grey and transparent": (pillow(np.stack([RAMP_8, 0 * RAMP_8], -1)), np.full((*SIZE, 3), 255.0), 0),
    "a colour that is transparent": (
        pillow(RED_AND_BLUE.astype(np.uint8), transparency=(200, 0, 0)),
        np.where(HALVES[..., None], [0, 0, 200], [255, 255, 255]).astype(float),
        0,
    ),
    "inks": (pillow(with_alpha(255 - COLOURS, 0), "TIFF", "CMYK"), COLOURS.astype(float), 0),
    "a bitmap": (pillow(COLOURS, "BMP"), COLOURS.astype(float), 0),
    "WebP": (pillow(COLOURS, "WEBP", lossless=True), COLOURS.astype(float), 0),
    "JPEG": (pillow(three(RAMP_8).astype(np.uint8), "JPEG", quality=100), three(RAMP_8), 2),
}

REFUSED = {
    "12 bits in 16": (pillow(RAMP_16 // 16), "16 bits a channel but no value above 4095"),
    "8 bits in 16": (pillow(RAMP_8.astype(np.uint16)), "16 bits a channel but no value above 4095"),
    "colours of 12 bits in 16": (opencv(COLOURS.astype(np.uint16) * 16, ".png"), "no value above 4095"),
    "colours of 8 bits in 16": (opencv(COLOURS.astype(np.uint16), ".tiff"), "no value above 4095"),
    "32 bits": (pillow(RAMP_16.astype(np.int32) * 1000, "TIFF"), "32-bit integers, whose white cannot be told"),
    "floats in 0..255": (pillow((255 * RAMP).astype(np.float32), "TIFF"), "floating-point values from 0 to 255"),
    "floats that are brighter than white": (
        pillow((1.5 * RAMP).astype(np.float32), "TIFF"),
        "floating-point values from 0 to 1.5, where black is 0 and white 1",
    ),
    "floats around 0": (pillow((2 * RAMP - 1).astype(np.float32), "TIFF"), "floating-point values from -1 to 1"),
    "floats that are none": (pillow(np.where(RAMP < 0.5, np.nan, RAMP).astype(np.float32), "TIFF"), "from nan to nan"),
    "L*a*b*": (pillow(COLOURS, "TIFF", "LAB"), "the mode LAB, which is not read"),
    "colours in floats": (opencv(COLOURS.astype(np.float32) / 255, ".tiff"), "an image of a kind that is not read"),
    "no picture": (b"<html>404</html>", "is corrupt, or an image of a kind that is not read"),
    "empty": (b"", "is corrupt, or an image of a kind that is not read"),
    "cut off": (pillow(COLOURS)[:300], "is corrupt and cannot be read"),
}


def archive_with(tmp_path, content):
    root = Path(shutil.copytree(ARCHIVE, tmp_path / "archive"))
    (root / f"JPEGImages/{NAME}.jpg").write_bytes(content)
    (root / f"semseg/VOC12/{NAME}.png").write_bytes(pillow(np.zeros(SIZE, np.uint8)))
    return root


def in_tar(tmp_path, content):
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        member = tarfile.TarInfo("a.jpg")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return find_images(tmp_path / "images.tar", keep=False)


def as_bytes(image):
    return (255 * image.numpy().transpose(1, 2, 0)).astype(float)


def every_reader(tmp_path, content):
    """{who reads: what it reads the file with}"""
    path = tmp_path / "a.png"
    path.write_bytes(content)
    whole = {"image_size": SIZE, "crop_scale": (1.0, 1.0)}
    return {
        "reader": lambda: read_image(path).astype(float),
        "evaluation": lambda: as_bytes(
            PascalContext(archive_with(tmp_path, content), "train", ["semseg"], image_size=SIZE)[0]["image"]
        ),
        "distillation": lambda: as_bytes(Images([path], **whole)[0]["image"]),
        "a tar": lambda: as_bytes(Images(in_tar(tmp_path, content), **whole)[0]["image"]),
        "the inspection of given images": lambda: as_bytes(GivenImages([path], SIZE)[0]["image"]),
    }


@pytest.mark.parametrize("kind", SOUND)
def test_all_who_read_see_what_the_file_shows(tmp_path, kind):
    content, shown, rounding = SOUND[kind]
    for who, read in every_reader(tmp_path, content).items():
        seen = read()
        if who in ("distillation", "a tar") and np.abs(seen[:, ::-1] - shown).max() < np.abs(seen - shown).max():
            seen = seen[:, ::-1]  # in half of the cases it is mirrored
        assert np.abs(seen - shown).max() <= rounding + 1e-4, who
    assert examine_unlabelled(SIZE, tmp_path / "a.png").problems == []


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_told_is_refused_by_all_in_one_sentence(tmp_path, kind):
    content, words = REFUSED[kind]
    for who, read in every_reader(tmp_path, content).items():
        with pytest.raises(UserError) as error:
            read()
        given = "cannot be read as an image|is no image that can be read" if who.startswith("the inspection") else ""
        assert words in str(error.value) or any(part and part in str(error.value) for part in given.split("|")), who
        assert "\n" not in str(error.value)
    (problem,) = examine_unlabelled(SIZE, tmp_path / "a.png").problems
    assert words in problem.detail


def test_too_many_pixels_are_no_damage_and_many_no_warning(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(pillow(np.zeros((1500, 3000), bool)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4_000_000)  # above it Pillow warns, above twice as many it refuses
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).shape == (1500, 3000, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_000_000)
    with pytest.raises(FaultyFile, match=r"has more pixels than the 4 million that are read at most: shrink it"):
        read_image(path)


def with_text():
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "x" * 3_000_000, zip=True)
    return {"pnginfo": text}


@pytest.mark.parametrize("beside", [with_text(), {"icc_profile": bytes(3_000_000)}])
def test_much_text_beside_the_pixels_is_no_damage(tmp_path, beside):
    path = tmp_path / "a.png"
    path.write_bytes(pillow(COLOURS, **beside))
    np.testing.assert_array_equal(read_image(path), COLOURS)


TURNS = {  # EXIF's orientation: what has to be done to see the picture upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", TURNS)
def test_unlabelled_pictures_are_turned_upright_and_labelled_ones_stay_as_stored(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = pillow(COLOURS, "JPEG", quality=95, exif=exif)
    stored = np.asarray(Image.open(io.BytesIO(content))).astype(float)
    upright = TURNS[orientation](stored)
    path = tmp_path / "a.jpg"
    path.write_bytes(content)

    labelled = PascalContext(archive_with(tmp_path, content), "train", ["semseg"], image_size=SIZE)
    np.testing.assert_allclose(as_bytes(labelled[0]["image"]), stored, atol=1e-4)
    of_archive = Images(labelled.image_files[:1], SIZE, crop_scale=(1.0, 1.0), upright=False)[0]["image"]
    assert any(np.allclose(as_bytes(of_archive), side, atol=1e-4) for side in (stored, stored[:, ::-1]))

    distilled = as_bytes(Images([path], upright.shape[:2], crop_scale=(1.0, 1.0))[0]["image"])
    assert any(np.allclose(distilled, side, atol=1e-4) for side in (upright, upright[:, ::-1]))
    np.testing.assert_allclose(as_bytes(GivenImages([path], upright.shape[:2])[0]["image"]), upright, atol=1e-4)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\0\x01"]
)
def test_metadata_that_make_no_sense_change_nothing(tmp_path, exif):
    path = tmp_path / "a.jpg"
    path.write_bytes(pillow(COLOURS, "JPEG", exif=exif))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_image(path, upright=True), read_image(path))

"""Labels in every encoding that is known: what they mean, and which are refused by readers and doctor alike."""

import io
import json
import pickle
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from PIL import Image

from sak.data.faulty_images import Skips
from sak.data.loading import load
from sak.data.nyud import NYUDv2
from sak.data.pascal_context import PascalContext
from sak.data.reading import read_classes, read_edges, read_levels, read_map, read_normals, read_saliency
from sak.errors import UserError
from sak.preflight.examination import examine

ROOT = Path(__file__).parents[1] / "fixtures/pascal_format/PASCALContext"
NAME, SIZE = "2008_001000", (56, 82)
rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
MASK = (rows + columns) % 7 == 0
RAMP = np.rint(255 * columns / (SIZE[1] - 1)).astype(np.uint8)
GREYS = np.repeat(np.arange(256)[:, None], 3, axis=1)


def png(array, mode=None, colours=None, **options):
    file, image = io.BytesIO(), Image.fromarray(array, mode)
    if colours is not None:
        image.putpalette(np.array(colours, np.uint8).tobytes())
    image.save(file, "PNG", **options)
    return file.getvalue()


def tiff(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "TIFF")
    return file.getvalue()


def of_bits(numbers, bits):
    """A grey PNG of 2 or 4 bits a pixel, which Pillow writes for palettes alone: the colour type is changed."""
    content = png(numbers.astype(np.uint8), "P", [(0, 0, 0)] * 2**bits, bits=bits)
    start = content.index(b"IHDR")
    header = content[start : start + 17]
    assert (header[12], header[13]) == (bits, 3)
    changed = header[:13] + b"\0" + header[14:]
    chunk = content.index(b"PLTE") - 4
    length = int.from_bytes(content[chunk : chunk + 4], "big") + 12
    content = content[:chunk] + content[chunk + length :]
    return content.replace(header + content[start + 17 : start + 21], changed + zlib.crc32(changed).to_bytes(4, "big"))


@pytest.fixture
def write(tmp_path):
    def write(content, name="a.png"):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def numbers(on, off=0, kind=np.uint8):
    return np.where(MASK, on, off).astype(kind)


BINARY = {  # the same map in every encoding
    "0 and 255": png(numbers(255)),
    "0 and 1": png(numbers(1)),
    "1 bit": png(MASK),
    "2 bits": of_bits(numbers(3), 2),
    "4 bits, 0 and 1": of_bits(numbers(1), 4),
    "4 bits": of_bits(numbers(15), 4),
    "16 bits": png(numbers(65535, kind=np.uint16)),
    "16 bits, 0 and 255": png(numbers(255, kind=np.uint16)),
    "16 bits, 0 and 1": png(numbers(1, kind=np.uint16)),
    "32 bits, 0 and 255": tiff(numbers(255, kind=np.int32)),
    "floats": tiff(numbers(1, kind=np.float32)),
    "palette of greys": png(numbers(255), "P", GREYS),
    "palette, white first": png(numbers(0, 1), "P", [(255, 255, 255), (0, 0, 0)]),
    "palette of colours": png(numbers(1), "P", [(0, 0, 0), (128, 0, 0)]),
    "palette of colours, 0 and 255": png(numbers(255), "P", GREYS[:, ::-1] * [1, 0, 1] + [0, 7, 0]),
    "palette of one colour": png(numbers(1), "P", [(0, 0, 0)] * 256),
}


@pytest.mark.parametrize("encoding", BINARY)
def test_a_binary_map_means_the_same_in_every_encoding(write, encoding):
    path = write(BINARY[encoding])
    np.testing.assert_array_equal(read_saliency(path), MASK)
    np.testing.assert_array_equal(read_edges(path), MASK)


@pytest.mark.parametrize(
    ("content", "levels"),
    [
        (png(RAMP), RAMP / 255),
        (png(RAMP.astype(np.uint16) * 257), RAMP / 255),
        (tiff((RAMP / 255).astype(np.float32)), RAMP / 255),
        (png(RAMP, "P", GREYS), RAMP / 255),
        (png(255 - RAMP, "P", 255 - GREYS), RAMP / 255),
        (of_bits(RAMP // 17, 4), (RAMP // 17) / 15),
        (of_bits(RAMP // 85, 2), (RAMP // 85) / 3),
        (tiff(np.full(SIZE, 0.5, np.float32)), np.full(SIZE, 0.5)),
    ],
)
def test_probabilities_are_salient_above_one_half(write, content, levels):
    path = write(content)
    np.testing.assert_allclose(read_levels(path).values, levels, atol=1e-6)
    np.testing.assert_array_equal(read_saliency(path), levels > 0.5)
    stored = read_map(path)
    first = stored[(levels > 0) & (levels < 1)][0]
    with pytest.raises(UserError, match=rf"holds the value {first}, and .* never resize the maps"):
        read_edges(path)


def test_nothing_salient_and_no_edge(write):
    for content in (png(0 * RAMP), png(0 * RAMP.astype(np.uint16)), png(np.zeros(SIZE, bool))):
        assert not read_saliency(write(content)).any()
        assert not read_edges(write(content)).any()
    for level in (2, 100, 127):  # probabilities below one half
        assert not read_saliency(write(png(numbers(level)))).any()


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (png(numbers(1)), "0 and 1"),
        (png(RAMP), "0..255"),
        (png(numbers(255, kind=np.uint16)), "0..255"),
        (png(RAMP.astype(np.uint16) * 257), "0..65535"),
        (tiff((RAMP / 255).astype(np.float32)), "floats"),
    ],
)
def test_encodings_have_names(write, content, encoding):
    assert read_levels(write(content)).encoding == encoding


def test_where_twelve_bits_end(write):
    with pytest.raises(UserError, match="from 0 to 4095, whose range cannot be told"):
        read_levels(write(png(numbers(4095, kind=np.uint16))))
    assert read_levels(write(png(numbers(4096, kind=np.uint16)))).values.max() == np.float32(4096 / 65535)


AMBIGUOUS = {
    "0, 1 and 255": (png(np.where(rows < 9, 255, numbers(1)).astype(np.uint8)), "nothing but 0, 1 and 255"),
    "12 bits in 16": (png(RAMP.astype(np.uint16) * 16), "from 0 to 4080, whose range cannot be told"),
    "8 bits in 16": (png(RAMP.astype(np.uint16)), "from 0 to 255, whose range cannot be told"),
    "32 bits": (tiff(RAMP.astype(np.int32) * 1000), "whose range cannot be told"),
    "negative": (tiff(numbers(1, -1, np.int32)), "from -1 to 1, whose range"),
    "floats in 0..255": (tiff(RAMP.astype(np.float32)), "floating-point numbers from 0 to 255"),
    "floats above 1": (tiff(numbers(1.5, kind=np.float32)), "floating-point numbers from 0 to 1.5, where 0..1"),
    "floats that are none": (tiff(numbers(np.nan, kind=np.float32)), "floating-point numbers from nan"),
    "indices of a palette": (png(numbers(15), "P", [(0, i, 128) for i in range(256)]), "whose range cannot be told"),
    "colours": (png(np.stack([RAMP] * 3, -1)), "has 3 channels where one is expected"),
}


@pytest.mark.parametrize("encoding", AMBIGUOUS)
def test_levels_that_cannot_be_told_are_refused(write, encoding):
    content, words = AMBIGUOUS[encoding]
    for read in (read_saliency, read_edges):
        with pytest.raises(UserError, match=words):
            read(write(content))


def test_classes_are_the_stored_numbers(write):
    classes = (rows + columns) % 21
    classes[:5] = 255
    for content in (
        png(classes.astype(np.uint8)),
        png(classes.astype(np.uint16)),
        tiff(classes.astype(np.int32)),
        tiff(classes.astype(np.float32)),
        png(classes.astype(np.uint8), "P", np.random.default_rng(0).integers(0, 256, (256, 3))),
    ):
        np.testing.assert_array_equal(read_classes(write(content), 21), classes)
    np.testing.assert_array_equal(read_classes(write(png(MASK)), 21), MASK)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (png(numbers(21)), r"holds the value 21, but there are 21 classes \(0\.\.20, 255 = ignore\)"),
        (tiff(numbers(-1, kind=np.int32)), "holds the value -1"),
        (tiff(numbers(2.5, kind=np.float32)), "holds the value 2.5"),
        (tiff(numbers(np.nan, kind=np.float32)), "holds the value nan"),
        (of_bits(numbers(1), 4), "fewer than 8 bits"),  # 1, or 17?
        (of_bits(numbers(1), 2), "fewer than 8 bits"),
    ],
)
def test_classes_that_are_none(write, content, words):
    with pytest.raises(UserError, match=words):
        read_classes(write(content), 21)


def test_classes_in_a_jpeg_are_refused(write):
    file = io.BytesIO()
    Image.fromarray(numbers(15)).save(file, "JPEG")
    with pytest.raises(UserError, match="is a JPEG, which changes the classes"):
        read_classes(write(file.getvalue()), 21)


def test_normals_need_three_channels(write):
    colours = np.stack([RAMP, RAMP[::-1], 255 - RAMP], -1)
    for content in (png(colours), png(np.concatenate([colours, np.full((*SIZE, 1), 255, np.uint8)], -1))):
        np.testing.assert_allclose(read_normals(write(content)), colours / 127.5 - 1, atol=1e-6)
    see_through = np.concatenate([colours, RAMP[..., None]], -1)
    for content, mode in ((png(RAMP), "L"), (png(see_through), "RGBA"), (png(RAMP.astype(np.uint16)), "I;16")):
        with pytest.raises(UserError, match=f"has the mode {mode} where three channels"):
            read_normals(write(content))


# --- MATLAB's files -------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copytree(ROOT, tmp_path / "PASCALContext"))


def problems(kind, root, task):
    """What the doctor says of the first image of train."""
    files, missing = kind.find_files(root, "train", kind.list_names(root, "train")[:1], [task])
    assert missing == []
    return examine(kind, SIZE, {key: paths[0] for key, paths in files.items()}).problems


def refused(kind, root, task):
    """The one sentence that readers and doctor say alike."""
    dataset = kind(root, "train", [task], image_size=SIZE)
    with pytest.raises(UserError) as error:
        dataset[0]
    (problem,) = problems(kind, root, task)
    assert problem.detail == str(error.value)
    assert "\n" not in problem.detail
    return problem


def cell(*items):
    array = np.empty((1, len(items)), dtype=object)
    array[0] = items
    return array


CLASSES = (rows // 8 + columns // 8).astype(np.uint16)
LABEL_MAPS = {
    "cells": (cell(CLASSES, CLASSES), "LabelMap is object of shape"),
    "three dimensions": (np.stack([CLASSES] * 3, -1), r"LabelMap is uint16 of shape \(56, 82, 3\)"),
    "text": ("a map", "LabelMap is <U"),
    "nothing": (np.zeros((0, 0)), r"of shape \(0, 0\)"),
    "sparse": (scipy.sparse.csc_matrix(CLASSES), "LabelMap is"),
    "no class": (np.where(MASK, 460, CLASSES), "holds 460, but PASCAL-Context has the classes 0..459"),
    "negative": (CLASSES.astype(np.int16) - 1, "holds -1"),
    "not a number": (np.where(MASK, np.nan, CLASSES), "holds nan"),
    "infinite": (np.where(MASK, np.inf, CLASSES), "holds inf"),
    "halves": (CLASSES / 2, "holds 0.5"),
    "complex": (CLASSES * 1j, "LabelMap is complex128"),
}


@pytest.mark.parametrize("odd", LABEL_MAPS)
def test_a_label_map_that_is_none(copy, odd):
    values, words = LABEL_MAPS[odd]
    scipy.io.savemat(copy / f"pascal-context/trainval/{NAME}.mat", {"LabelMap": values})
    for task in ("edge", "normals"):
        assert re.search(words, refused(PascalContext, copy, task).detail)


OBJECT = [("class", object), ("class_ind", object), ("mask", object), ("parts", object)]
PART = [("part_name", object), ("mask", object)]


def structs(kind, *records):
    array = np.empty((1, len(records)), dtype=kind)
    for index, record in enumerate(records):
        array[0, index] = record
    return array


def annotation(*parts, class_ind=15):
    person = structs(OBJECT, ("person", class_ind, MASK.astype(np.uint8), structs(PART, *parts)))
    return structs([("imname", object), ("objects", object)], (NAME, person))


ANNOTATIONS = {
    "cells": (cell(1, 2), "anno is not built as PASCAL-Part's"),
    "numbers": (np.eye(3), "anno is not built as PASCAL-Part's"),
    "other fields": (structs([("imname", object)], (NAME,)), "anno is not built as PASCAL-Part's"),
    "objects in numbers": (
        structs([("imname", object), ("objects", object)], (NAME, np.eye(2))),
        "anno is not built as PASCAL-Part's",
    ),
    "several classes of one": (annotation(("nose", MASK), class_ind=np.array([15, 3])), "not built as PASCAL-Part's"),
    "an unknown part": (annotation(("tail", MASK.astype(np.uint8))), "has a person's part 'tail'"),
    "a mask in three dimensions": (annotation(("nose", np.stack([MASK] * 3, -1))), r"a mask of \(56, 82, 3\) pixels"),
    "a mask of one row": (annotation(("nose", MASK[:1])), r"a mask of \(1, 82\) pixels"),
    "a mask in cells": (annotation(("nose", cell(MASK, MASK))), "mask of nose is no array of numbers"),
    "a mask that is no number": (annotation(("nose", np.where(MASK, np.nan, 0))), "nose is no array of numbers"),
}


@pytest.mark.parametrize("odd", ANNOTATIONS)
def test_parts_that_are_none(copy, odd):
    content, words = ANNOTATIONS[odd]
    scipy.io.savemat(copy / f"human_parts/{NAME}.mat", {"anno": content})
    assert re.search(words, refused(PascalContext, copy, "human_parts").detail)


def test_a_file_of_matlab_7_3_is_not_called_corrupt(copy):
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\x00\x02IM"
    (copy / f"human_parts/{NAME}.mat").write_bytes(header + b"\x89HDF\r\n\x1a\n" + bytes(1000))
    problem = refused(PascalContext, copy, "human_parts")
    assert "is a MATLAB file of version 7.3" in problem.detail
    assert "-v7" in problem.detail
    assert "corrupt" not in problem.detail


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("nyu_classes", {"wall": 1}, None),
        ("nyu_classes", ["wall", 3], "is no list of names"),
        ("nyu_classes", 3, "is no list of names"),
        ("context_classes", ["wall"], "is no table of names and numbers"),
        ("context_classes", {"wall": "3"}, "is no table of names and numbers"),
        ("context_classes", {"wall": [3]}, "is no table of names and numbers"),
    ],
)
def test_tables_of_classes_that_are_none(copy, file, content, words):
    (copy / f"json/{file}.json").write_text("\ufeff" + json.dumps(content), encoding="utf-8")
    if words is None:
        assert PascalContext(copy, "train", ["normals"], image_size=SIZE)[0]["normals"].shape == (3, *SIZE)
    else:
        assert words in refused(PascalContext, copy, "normals").detail


# --- rooms ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def rooms(tmp_path):
    for folder in ("images", "gt_sets", "edge", "depth", "normals"):
        (tmp_path / folder).mkdir()
    (tmp_path / "gt_sets/train.txt").write_text("1\n2\n3")
    for name in "123":
        Image.fromarray(np.stack([RAMP] * 3, -1)).save(tmp_path / f"images/{name}.png")
        np.save(tmp_path / f"depth/{name}.npy", np.where(MASK, 0, 1 + columns / 40))
        (tmp_path / f"edge/{name}.png").write_bytes(png(numbers(255)))
    return tmp_path


DEPTHS = {
    "not a number": (np.where(MASK, np.nan, 2), r"holds nan, and \d+ pixels that are negative or not finite"),
    "infinite": (np.where(MASK, np.inf, 2), "holds inf"),
    "negative": (np.where(MASK, -1, 2), "holds -1"),
    "beyond single precision": (np.where(MASK, 1e300, 2), "holds 1e.300"),
    "complex": (MASK * 1j, "holds complex128"),
    "text": (np.full(SIZE, "2.0"), "holds <U3"),
    "channels": (np.ones((*SIZE, 1)), r"has shape \(56, 82, 1\)"),
    "another size": (np.ones((20, 20)), r"is \(20, 20\) pixels"),
}


@pytest.mark.parametrize("odd", DEPTHS)
def test_depth_that_is_none_is_named_and_can_be_skipped(rooms, odd):
    values, words = DEPTHS[odd]
    np.save(rooms / "depth/1.npy", values)
    assert re.search(f"depth/1.npy {words}", refused(NYUDv2, rooms, "depth").detail)
    skips = Skips(rooms / "skipped.txt", "val", 3, 0.5, replaced=False)
    (batch,) = load(NYUDv2(rooms, "train", ["depth"], image_size=SIZE), [[0, 1, 2]], 0, skips=skips)
    assert batch["name"] == ["2", "3"]


class Trap:
    """What a pickle may do when it is loaded."""

    def __reduce__(self):
        return pytest.fail, ("code of a data set was run",)


def several(file):
    np.savez(file, depth=np.ones(SIZE), other=np.ones(SIZE))


def objects(file):
    traps = np.empty(SIZE, dtype=object)
    traps[:] = Trap()
    np.save(file, traps, allow_pickle=True)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (several, "is no array of NumPy's"),
        (objects, "holds objects where numbers are expected"),
        (lambda file: pickle.dump(Trap(), file), "is no array of NumPy's"),
        (lambda file: file.write(b"1.0 2.0\n"), "is no array of NumPy's"),
        (lambda file: None, "is no array of NumPy's"),
    ],
)
def test_depth_files_of_other_kinds_are_refused_and_never_run(rooms, write, words):
    with open(rooms / "depth/1.npy", "wb") as file:
        write(file)
    detail = refused(NYUDv2, rooms, "depth").detail
    assert words in detail
    assert "pickle" not in detail


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.uint8])
def test_depth_of_any_type_is_read_in_metres(rooms, kind):
    depth = np.where(MASK, 0, 1 + columns // 20).astype(kind)
    np.save(rooms / "depth/1.npy", depth)
    read = NYUDv2(rooms, "train", ["depth"], image_size=SIZE)[0]["depth"][0].numpy()
    np.testing.assert_array_equal(read, np.where(MASK, 255, depth))


@pytest.mark.parametrize("encoding", BINARY)
def test_edges_of_rooms_mean_the_same_in_every_encoding(rooms, encoding):
    (rooms / "edge/1.png").write_bytes(BINARY[encoding])
    first, second = (NYUDv2(rooms, "train", ["edge"], image_size=SIZE)[index] for index in (0, 1))
    for key in ("edge", "boundaries"):
        assert (first[key] == second[key]).all()
    np.testing.assert_array_equal(first["edge"][0].numpy(), MASK)
    assert problems(NYUDv2, rooms, "edge") == []


def test_edges_between_are_refused_by_readers_and_doctor(rooms):
    (rooms / "edge/1.png").write_bytes(png(numbers(128)))
    problem = refused(NYUDv2, rooms, "edge")
    assert problem.kind == "edges"
    assert f"{rooms}/edge/1.png holds the value 128, and {MASK.sum()} pixels" in problem.detail


def test_normals_far_from_unit_length_are_ignored_if_asked(rooms):
    """Of lengths 1, 0.94 and about 0: all stay by default, the last goes at 0.1, the middle one at 0.05 too."""
    short = [np.rint(127.5 * (np.array([0, 0, length]) + 1)) for length in (1, 0.94, 0)]
    stripes = np.array(short)[columns % 3].astype(np.uint8)
    for name in "123":
        Image.fromarray(stripes).save(rooms / f"normals/{name}.png")

    def kept(tolerance):
        normals = NYUDv2(rooms, "train", ["normals"], image_size=SIZE, normals_tolerance=tolerance)[0]["normals"]
        return [bool((normals[:, :, column] != 255).all()) for column in range(3)]

    assert [kept(tolerance) for tolerance in (None, 0.1, 0.05)] == [
        [True, True, True],
        [True, True, False],
        [True, False, False],
    ]

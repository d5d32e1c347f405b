"""What real archives hold beside the usual: empty structs, 16-bit maps, images without any label of a kind."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from sak.data.nyud import NYUDv2
from sak.data.pascal_context import PascalContext
from sak.errors import UserError

ROOT = Path(__file__).parents[1] / "fixtures/pascal_format/PASCALContext"
NAME, SIZE = "2008_001000", (56, 82)
OBJECT = [("class", object), ("class_ind", object), ("mask", object), ("parts", object)]
PART = [("part_name", object), ("mask", object)]


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copytree(ROOT, tmp_path / "PASCALContext"))


def structs(kind, *records):
    array = np.empty((1, len(records)), dtype=kind)
    for index, record in enumerate(records):
        array[0, index] = record
    return array


def parts_label(copy, *objects):
    annotation = structs([("imname", object), ("objects", object)], (NAME, structs(OBJECT, *objects)))
    scipy.io.savemat(copy / f"human_parts/{NAME}.mat", {"anno": annotation})
    return PascalContext(copy, "train", ["human_parts"], image_size=SIZE)[0]["human_parts"]


def square(*corner):
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[corner[0] : corner[0] + 10, corner[1] : corner[1] + 10] = 1
    return mask


def test_people_with_empty_part_lists_beside_others(copy):
    head, hand = (structs(PART, (name, square(*corner))) for name, corner in (("nose", (2, 3)), ("rhand", (30, 40))))
    label = parts_label(
        copy,
        ("person", 15, square(0, 0), np.zeros((0, 0))),  # not annotated
        ("person", 15, square(0, 0), head),
        ("dog", 12, square(20, 20), structs(PART, ("tail", square(20, 20)))),  # parts that are not human
        ("person", 15, square(30, 40), hand),
    )
    expected = np.where(square(2, 3), 1, 0) + np.where(square(30, 40), 4, 0)
    np.testing.assert_array_equal(label.numpy(), expected)


def test_later_objects_are_painted_over_earlier_ones(copy):
    torso, foot = (structs(PART, (name, square(5, 5))) for name in ("torso", "lfoot"))
    label = parts_label(copy, ("person", 15, square(5, 5), torso), ("person", 15, square(5, 5), foot))
    assert set(label.unique().tolist()) == {0, 6}


def test_only_animals_means_ignored(copy):
    label = parts_label(copy, ("dog", 12, square(20, 20), structs(PART, ("head", square(20, 20)))))
    assert (label == 255).all()


@pytest.mark.parametrize("augment", [False, True])
def test_no_salient_pixel(copy, augment):
    Image.fromarray(np.zeros(SIZE, dtype=np.uint8)).save(copy / f"sal_distill/{NAME}.png")
    sample = PascalContext(copy, "train", ["saliency"], image_size=(96, 96), augment=augment)[0]
    assert set(sample["saliency"].unique().tolist()) <= {0, 255}
    assert (sample["saliency"] == 0).any()


def test_label_maps_of_16_bits(copy):
    before = PascalContext(copy, "train", image_size=SIZE)[0]
    path = copy / f"semseg/VOC12/{NAME}.png"
    Image.fromarray(np.array(Image.open(path)).astype(np.uint16)).save(path)
    label_map = copy / f"pascal-context/trainval/{NAME}.mat"
    classes = scipy.io.loadmat(label_map)["LabelMap"]
    assert Image.open(path).mode.startswith("I")
    for kind in (np.uint16, np.int32, np.float64):
        scipy.io.savemat(label_map, {"LabelMap": classes.astype(kind)})
        after = PascalContext(copy, "train", image_size=SIZE)[0]
        assert all(torch.equal(after[task], before[task]) for task in PascalContext.TASKS)


def test_16_bits_do_not_wrap_around(copy):
    path = copy / f"semseg/VOC12/{NAME}.png"
    Image.fromarray(np.full(SIZE, 256 + 3, dtype=np.uint16)).save(path)  # 3 in 8 bits
    with pytest.raises(UserError, match="holds the value 259"):
        PascalContext(copy, "train", ["semseg"], image_size=SIZE)[0]


def test_grey_images_are_read_in_three_channels(copy):
    path = copy / f"JPEGImages/{NAME}.jpg"
    Image.open(path).convert("L").save(path)
    image = PascalContext(copy, "train", ["semseg"], image_size=SIZE)[0]["image"]
    assert image.shape == (3, *SIZE)
    assert torch.equal(image[0], image[2])


@pytest.mark.parametrize("size", [(20, 200), (200, 20), (16, 16), (300, 300)])
@pytest.mark.parametrize("augment", [False, True])
def test_images_smaller_and_larger_than_the_canvas(size, augment):
    for sample in PascalContext(ROOT, "train", image_size=size, augment=augment):
        assert {sample[task].shape[-2:] for task in PascalContext.TASKS} == {size}
        assert sample["image"].shape == (3, *size)
        assert all(side <= limit for side, limit in zip(sample["size"], size, strict=True))


@pytest.mark.parametrize(("kind", "said"), [(NYUDv2, "gt_sets/train.txt"), (PascalContext, "right archive")])
def test_the_root_of_another_data_set(kind, said, tmp_path):
    root = ROOT if kind is NYUDv2 else tmp_path
    with pytest.raises(UserError, match=said):
        kind(root, "train")


def test_files_are_missing_for_each_task(copy):
    (copy / f"sal_distill/{NAME}.png").unlink()
    (copy / f"pascal-context/trainval/{NAME}.mat").unlink()
    (copy / "json/nyu_classes.json").unlink()  # one file, however many images need it
    names = PascalContext.list_names(copy, "train")
    _, missing = PascalContext.find_files(copy, "train", names, PascalContext.TASKS)
    label_map, classes = str(copy / f"pascal-context/trainval/{NAME}.mat"), str(copy / "json/nyu_classes.json")
    assert missing == [
        ("saliency", str(copy / f"sal_distill/{NAME}.png")),
        ("normals", label_map),
        ("normals", classes),
        ("edge", label_map),
    ]
    with pytest.raises(UserError, match=r"lacks 3 of its files"):
        PascalContext(copy, "train")

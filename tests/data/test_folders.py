"""Data of one's own: which files are found, what their numbers mean, and what is missing."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from sak import data
from sak.config.schema import DataConfig, LabelConfig
from sak.errors import UserError
from sak.labels import IGNORE

NAMES = ["background", "person", "animal", "vehicle", "thing"]


def settings(root, **changes):
    labels = {"semseg": LabelConfig(values=[10, 20, 30, 40, 50], ignore=[0]), "depth": LabelConfig(scale=1000)}
    standard = {"tasks": ["semseg", "depth"], "classes": {"semseg": NAMES}, "labels": labels, "image_size": [48, 48]}
    return DataConfig(dataset="folders", root=str(root), **{**standard, **changes})


@pytest.fixture
def copy(strangers, tmp_path):
    return shutil.copytree(strangers, tmp_path / "street")


def draw(path, size=(8, 10), largest=3, seed=0):
    """A picture of random numbers below `largest`, and the numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng([seed, *map(ord, path.stem)]).integers(0, largest, size).astype(np.uint8)
    Image.fromarray(values).save(path)
    return values


# --- a stranger's data ----------------------------------------------------------------------------------------------


def test_labels_are_told_by_the_stored_numbers(strangers):
    found = data.build(settings(strangers), "train")
    assert found.names == [f"a{index}" for index in range(6)]
    sample = found[1]
    stored = np.array(Image.open(strangers / "semseg/train/a1.png")).astype(int)
    expected = np.where(stored == 0, IGNORE, stored // 10 - 1)
    np.testing.assert_array_equal(sample["semseg"].numpy(), expected)
    millimetres = np.array(Image.open(strangers / "depth/train/a1.png")).astype(np.float32)
    expected = np.where(millimetres == 0, IGNORE, millimetres / 1000)
    np.testing.assert_array_equal(sample["depth"][0].numpy(), expected)
    assert sample["depth"].dtype == torch.float32
    assert 0.3 < sample["depth"][sample["depth"] != IGNORE].median() < 30


def test_a_missing_label_is_ignored_altogether_and_the_others_are_not(strangers):
    found = data.build(settings(strangers), "train")
    assert (found[4]["depth"] == IGNORE).all()
    assert not (found[4]["semseg"] == IGNORE).all()
    assert (found[5]["semseg"] == IGNORE).all()
    assert found[5]["semseg"].dtype == torch.int64
    assert found[5]["depth"].shape == (1, 48, 48)
    augmented = data.build(settings(strangers), "train", augment=True)
    assert (augmented[5]["depth"] == IGNORE).all()
    assert all(path.is_file() for path in found.files)
    assert len(found.files) == 6 + 5 + 4


def test_a_missing_edge_leaves_nothing_to_match(copy):
    for name in ("a0", "a1"):
        draw(copy / "edge/val" / f"{name}.png", (48, 48), 2)
        shutil.copytree(copy / "edge/val", copy / "edge/train", dirs_exist_ok=True)
    found = data.build(settings(copy, tasks=["edge"], classes={}, labels={}), "val")
    assert set(found[0]["boundaries"].unique().tolist()) == {0, 1}
    assert found[2]["boundaries"].unique().tolist() == found[2]["edge"].unique().tolist() == [IGNORE]


def test_names_of_classes_may_lie_beside_the_data(copy):
    (copy / "classes.txt").write_text("\ufeffroad\r\ncar \r\ntree\r\na dog\r\nhouse\r\n\r\n")
    kind = data.kind_of(settings(copy, classes={}))
    assert kind.DESCRIPTION.tasks["semseg"].classes == ("road", "car", "tree", "a dog", "house")
    (copy / "semseg/classes.txt").write_text("a\nb\nc\nd\ne\n")  # nearer
    assert data.kind_of(settings(copy, classes={})).DESCRIPTION.tasks["semseg"].classes == tuple("abcde")
    assert data.kind_of(settings(copy)).DESCRIPTION.tasks["semseg"].background == 0


def test_lists_choose_the_images(copy):
    (copy / "lists").mkdir()
    (copy / "lists/train.txt").write_text("a3\na0.jpg\n")
    (copy / "lists/val.txt").write_text("a1\n")
    found = data.build(settings(copy, lists="lists/{split}.txt"), "train")
    assert found.names == ["a3", "a0"]
    (copy / "lists/train.txt").write_text("a3\ngone\n")
    with pytest.raises(
        UserError, match=r"lacks 1 of its files, the first is .*images/train/gone\.\* \(image\): correct data\.images"
    ):
        data.build(settings(copy, lists="lists/{split}.txt"), "train")
    (copy / "lists/train.txt").write_text("../../a3\n")
    with pytest.raises(UserError, match=r"line 1, is '\.\./\.\./a3', a path"):
        data.build(settings(copy, lists="lists/{split}.txt"), "train")


def test_depth_may_be_arrays_of_metres_and_any_suffix_may_be_in_capitals(copy):
    metres = np.array(Image.open(copy / "depth/val/a0.png")).astype(np.float64) / 1000
    (copy / "depth/val/a0.png").unlink()
    np.save(copy / "depth/val/a0.npy", metres)
    (copy / "images/val/a0.jpg").rename(copy / "images/val/a0.JPG")
    unscaled = data.build(settings(copy, tasks=["depth"], classes={}, labels={}), "val")
    expected = np.where(metres == 0, IGNORE, metres).astype(np.float32)
    np.testing.assert_array_equal(unscaled[0]["depth"][0].numpy(), expected)
    with pytest.raises(UserError, match=r"a1\.png is a picture, whose whole numbers need a scale"):
        unscaled[1]


# --- trees of others ------------------------------------------------------------------------------------------------


def test_a_tree_as_ade20k(tmp_path):
    root = tmp_path / "ADEChallengeData2016"
    for split in ("training", "validation"):
        draw(root / f"images/{split}/ADE_1.png")
        (root / f"images/{split}/ADE_1.png").rename(root / f"images/{split}/ADE_1.jpg")
        stored = draw(root / f"annotations/{split}/ADE_1.png", largest=4)
    label = LabelConfig(path="annotations/{split}/{name}.png", reduce_zero_label=True)
    ade = settings(
        root,
        tasks=["semseg"],
        classes={"semseg": ["wall", "building", "sky"]},
        labels={"semseg": label},
        splits={"train": "training", "val": "validation"},
    )
    found = data.build(ade, "val")[0]
    assert found["name"] == "ADE_1"
    window = found["semseg"][20:28, 19:29].numpy()
    np.testing.assert_array_equal(window, np.where(stored == 0, IGNORE, stored.astype(int) - 1))


def test_a_tree_as_cityscapes(tmp_path):
    root = tmp_path / "cityscapes"
    for split, city in (("train", "aachen"), ("train", "bochum"), ("val", "lindau")):
        draw(root / f"leftImg8bit/{split}/{city}/{city}_0_leftImg8bit.png")
        stored = draw(root / f"gtFine/{split}/{city}/{city}_0_gtFine_labelIds.png", largest=9)
        draw(root / f"gtFine/{split}/{city}/{city}_0_gtFine_instanceIds.png")
    label = LabelConfig(path="gtFine/{split}/{name}_gtFine_labelIds.png", values=[7, 8], ignore=[*range(7), 255])
    cityscapes = settings(
        root,
        tasks=["semseg"],
        images="leftImg8bit/{split}/{name}_leftImg8bit.png",
        classes={"semseg": ["road", "sidewalk"]},
        labels={"semseg": label},
    )
    assert data.build(cityscapes, "train").names == ["aachen/aachen_0", "bochum/bochum_0"]
    window = data.build(cityscapes, "val")[0]["semseg"][20:28, 19:29].numpy()
    np.testing.assert_array_equal(window, np.where(stored == 7, 0, np.where(stored == 8, 1, IGNORE)))


def test_a_tree_as_voc(tmp_path):
    root = tmp_path / "VOC2012"
    for name in ("2007_1", "2007_2", "2007_3"):
        draw(root / f"JPEGImages/{name}.png")
        (root / f"JPEGImages/{name}.png").rename(root / f"JPEGImages/{name}.jpg")
        stored = draw(root / f"SegmentationClass/{name}.png")
        picture = Image.fromarray(stored, "P")
        picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        picture.save(root / f"SegmentationClass/{name}.png")
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/train.txt").write_text("2007_2\n2007_1\n")
    (root / "ImageSets/Segmentation/val.txt").write_text("2007_3\n")
    voc = settings(
        root,
        tasks=["semseg"],
        images="JPEGImages/{name}.jpg",
        lists="ImageSets/Segmentation/{split}.txt",
        classes={"semseg": ["background", "aeroplane", "bicycle"]},
        labels={"semseg": LabelConfig(path="SegmentationClass/{name}.png")},
    )
    assert data.build(voc, "train").names == ["2007_2", "2007_1"]
    np.testing.assert_array_equal(data.build(voc, "val")[0]["semseg"][20:28, 19:29].numpy(), stored)


def test_a_binary_mask_of_0_and_255(tmp_path):
    for split in ("train", "val"):
        draw(tmp_path / f"images/{split}/x.png")
        stored = 255 * draw(tmp_path / f"semseg/{split}/x.png", largest=2)
        Image.fromarray(stored).save(tmp_path / f"semseg/{split}/x.png")
    masks = settings(
        tmp_path,
        tasks=["semseg"],
        classes={"semseg": ["skin", "wound"]},
        labels={"semseg": LabelConfig(values=[0, 255])},
    )
    window = data.build(masks, "val")[0]["semseg"][20:28, 19:29].numpy()
    np.testing.assert_array_equal(window, stored // 255)


# --- what is wrong is one sentence ------------------------------------------------------------------------------------

MISTAKES = {
    "no names": ({"classes": {}}, "semseg: nobody names its classes: set data.classes={semseg:"),
    "two alike": ({"classes": {"semseg": [*NAMES[:4], "person"]}}, "two classes are called 'person'"),
    "too few names": ({"classes": {"semseg": NAMES[:4]}}, "data.labels.semseg.values has 5 numbers for 4 classes"),
    "colours": ({"colours": {"semseg": [[1, 2, 3]]}}, "there are 1 colours for 5 classes"),
    "classes of depth": ({"classes": {"semseg": NAMES, "depth": ["near"]}}, "depth: it has no classes"),
    "a task that is none": ({"classes": {"semseg": NAMES, "edges": ["a"]}}, "data.classes is about 'edges'"),
    "an unknown task": ({"tasks": ["segmentation"]}, "unknown task 'segmentation'; known: semseg"),
    "both ways": (
        {"labels": {"semseg": LabelConfig(values=[1, 2, 3, 4, 5], reduce_zero_label=True)}},
        "has values and reduce_zero_label",
    ),
    "both meanings": (
        {"labels": {"semseg": LabelConfig(values=[1, 2, 3, 4, 0], ignore=[0])}},
        "0 stands for class 4 and is ignored",
    ),
    "no name": ({"images": "images/{split}.jpg"}, "data.images is .* but must have {name} once"),
    "another place": ({"images": "images/{split}/{name}/{view}.jpg"}, "must have {name} once"),
    "no split": ({"images": "images/{name}.jpg"}, "nothing tells train from val"),
    "a label without a name": ({"labels": {"semseg": LabelConfig(path="x.png")}}, r"data\.labels\.semseg\.path is"),
    "one list": ({"lists": "train.txt"}, "data.lists is 'train.txt', but must have {split}"),
    "no such list": ({"lists": "{split}.txt"}, "train.txt, the list of train images"),
    "no such folder": ({"images": "pictures/{split}/{name}"}, "there is no .*pictures/train, for train images"),
    "no such split": ({"splits": {"test": "testing"}}, "data.splits has 'test'"),
    "another folder": ({"splits": {"train": "training"}}, "there is no .*images/training"),
    "no label at all": ({"tasks": ["semseg", "normals"]}, "normals.*; not one image of train has a label of it"),
    "another suffix": ({"images": "images/{split}/{name}.png"}, r"holds no image that .* left out: 6 of another name"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_of_the_config_are_one_sentence(strangers, mistake):
    changes, sentence = MISTAKES[mistake]
    with pytest.raises(UserError, match=sentence) as error:
        data.build(settings(strangers, **changes), "train")
    assert "\n" not in str(error.value)


def test_values_outside_the_classes_are_named(copy):
    path = copy / "semseg/train/a2.png"
    stored = np.array(Image.open(path))
    stored[0, :3] = (7, 8, 60)
    Image.fromarray(stored).save(path)
    with pytest.raises(UserError, match=r"a2\.png holds 7, 8, 60, but the 5 classes are stored as 10, 20, 30, 40, 50"):
        data.build(settings(copy), "train")[2]


def test_two_images_of_one_name_are_refused(copy):
    shutil.copy(copy / "images/train/a0.jpg", copy / "images/train/a0.png")
    with pytest.raises(UserError, match=r"holds a0\.jpg and a0\.png, two images of one name"):
        data.build(settings(copy), "train")


def test_settings_of_own_data_are_refused_for_others(strangers):
    with pytest.raises(UserError, match=r"data\.classes is set, but NYUD-v2 is what it is"):
        data.build(DataConfig(dataset="nyud", root=str(strangers), tasks=["semseg"], classes={"semseg": NAMES}), "val")


def test_a_data_set_of_ones_own_class(copy, tmp_path, monkeypatch):
    (tmp_path / "my_data.py").write_text(
        """
from sak.data.archive import Archive
from sak.data.description import Description
from sak.data.reading import read_map
from sak.tasks import TaskDescription


class Street(Archive):
    DESCRIPTION = Description("street", {"semseg": TaskDescription.of_classes(["low", "high"])})
    TASKS = ("semseg",)
    IMAGES, LISTS = "images/{split}/{name}.jpg", "{split}.txt"
    FILES = {"semseg": (("semseg/{split}/{name}.png",),)}

    @staticmethod
    def read(task, size, path):
        return (read_map(path) > 30).astype("uint8")
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    (copy / "train.txt").write_text("a0\na1\n")
    own = DataConfig(dataset="my_data:Street", root=str(copy), tasks=["semseg"], image_size=[48, 48])
    stored = np.array(Image.open(copy / "semseg/train/a1.png"))
    np.testing.assert_array_equal(data.build(own, "train")[1]["semseg"].numpy(), stored > 30)
    for name, sentence in (
        ("my_data:Road", "module my_data has no 'Road'"),
        ("my_date:Street", "there is no module my_date for my_date:Street"),
        ("json:JSONDecoder", "is no subclass of sak.data.archive.Archive"),
        ("street", "unknown data set 'street'; known: mini_context"),
    ):
        with pytest.raises(UserError, match=sentence):
            data.build(DataConfig(dataset=name, root=str(copy), tasks=["semseg"], image_size=[48, 48]), "train")

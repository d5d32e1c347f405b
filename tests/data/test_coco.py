"""COCO's annotations as class maps: what is drawn over what, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask

from sak import data
from sak.config.schema import DataConfig, LabelConfig
from sak.data.own.coco import convert
from sak.errors import UserError

SIZE = (10, 12)
CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}]
IMAGES = [
    {"id": 7, "file_name": "a.jpg", "height": 10, "width": 12},
    {"id": 8, "file_name": "sub/b.jpg", "height": 10, "width": 12},
]


def box(top, left, bottom, right):
    """A polygon along the pixels' borders."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def instances(**changes):
    rle = np.zeros(SIZE, np.uint8, order="F")
    rle[8:, :3] = 1
    counts = mask.encode(rle)
    runs = {"size": list(SIZE), "counts": counts["counts"].decode()}
    annotations = [
        {"image_id": 7, "category_id": 18, "area": 4, "iscrowd": 0, "segmentation": box(2, 2, 4, 4)},
        {"image_id": 7, "category_id": 1, "area": 36, "iscrowd": 0, "segmentation": box(1, 1, 7, 7)},
        {"image_id": 7, "category_id": 1, "area": 50, "iscrowd": 1, "segmentation": runs},
        {"image_id": 7, "category_id": 18, "area": 0, "iscrowd": 0, "segmentation": []},
    ]
    return {"images": IMAGES, "categories": CATEGORIES, "annotations": annotations, **changes}


def written(path, content):
    path.write_text(json.dumps(content))
    return path


def test_small_things_lie_on_large_ones_and_crowds_are_ignored(tmp_path):
    out = tmp_path / "semseg" / "train"
    assert convert(written(tmp_path / "instances.json", instances()), out, progress=False) == 2
    expected = np.zeros(SIZE, np.uint8)
    expected[8:, :3] = 255
    expected[1:7, 1:7] = 1  # person, whose id is the lower one
    expected[2:4, 2:4] = 2
    np.testing.assert_array_equal(np.array(Image.open(out / "a.png")), expected)
    assert not np.array(Image.open(out / "sub/b.png")).any()
    assert (tmp_path / "semseg/classes.txt").read_text() == "background\nperson\ndog\n"


def test_panoptic_segments(tmp_path):
    folder = tmp_path / "panoptic"
    folder.mkdir()
    numbers = np.zeros(SIZE, np.uint32)
    numbers[:5], numbers[5:, :6], numbers[9, 9] = 300, 70000, 5
    colours = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], axis=-1).astype(np.uint8)
    Image.fromarray(colours).save(folder / "a.png")
    segments = [
        {"id": 300, "category_id": 1},
        {"id": 70000, "category_id": 18},
        {"id": 5, "category_id": 1, "iscrowd": 1},
    ]
    annotation = {"image_id": 7, "file_name": "a.png", "segments_info": segments}
    content = {"images": IMAGES[:1], "categories": CATEGORIES, "annotations": [annotation]}
    out = tmp_path / "semseg" / "val"
    convert(written(tmp_path / "panoptic.json", content), out, folder, progress=False)
    expected = np.where(numbers == 300, 0, np.where(numbers == 70000, 1, 255))
    np.testing.assert_array_equal(np.array(Image.open(out / "a.png")), expected)
    assert (tmp_path / "semseg/classes.txt").read_text() == "person\ndog\n"
    del segments[1]
    with pytest.raises(UserError, match=r"a\.png holds the segment 70000, which its JSON does not have"):
        convert(written(tmp_path / "panoptic2.json", content), tmp_path / "semseg" / "other", folder, progress=False)


def test_what_is_there_stays_and_a_stopped_conversion_goes_on(tmp_path):
    file, out = written(tmp_path / "instances.json", instances()), tmp_path / "semseg" / "train"
    convert(file, out, progress=False)
    before = (out / "a.png").stat().st_mtime_ns
    (out / "sub/b.png").unlink()
    convert(file, out, progress=False)
    assert (out / "a.png").stat().st_mtime_ns == before
    assert (out / "sub/b.png").is_file()
    other = written(tmp_path / "other.json", instances())
    with pytest.raises(UserError, match="holds maps of other annotations"):
        convert(other, out, progress=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        convert(file, tmp_path / "full", progress=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "is no annotation file of COCO's"),
        ([1], "is no annotation file of COCO's"),
        (instances(images=[]), "is no annotation file of COCO's"),
        (instances(images=[{**IMAGES[0], "file_name": "../../a.jpg"}]), "lies in no folder below"),
        (
            instances(categories=[{"id": i, "name": f"c{i}"} for i in range(300)]),
            "has 301 classes, but there may be 255",
        ),
        (instances(annotations=[{"segments_info": []}]), "holds panoptic segments: name the folder"),
    ],
)
def test_what_is_no_annotation_file_is_refused_and_nothing_is_written(tmp_path, content, message):
    file = written(tmp_path / "x.json", content)
    with pytest.raises(UserError, match=message):
        convert(file, tmp_path / "out" / "train", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json"]


def test_through_the_tool_to_a_data_set(tmp_path, call_tool):
    for split in ("train2017", "val2017"):
        (tmp_path / f"coco/{split}").mkdir(parents=True)
        Image.new("RGB", SIZE[::-1]).save(tmp_path / f"coco/{split}/a.jpg")
        written(tmp_path / f"{split}.json", instances(images=IMAGES[:1]))
        code, out, errors = call_tool("coco_to_folders", f"{split}.json", "--out", f"coco/semseg/{split}")
        assert (code, errors) == (0, [])
        assert "1 maps in coco/semseg" in out
    coco = DataConfig(
        dataset="folders",
        root=str(tmp_path / "coco"),
        tasks=["semseg"],
        image_size=list(SIZE),
        images="{split}/{name}.jpg",
        labels={"semseg": LabelConfig(path="semseg/{split}/{name}.png")},
        splits={"train": "train2017", "val": "val2017"},
    )
    assert data.kind_of(coco).DESCRIPTION.tasks["semseg"].classes == ("background", "person", "dog")
    assert sorted(data.build(coco, "val")[0]["semseg"].unique().tolist()) == [0, 1, 2, 255]
    assert call_tool("coco_to_folders", "nowhere.json", "--out", "x")[0] == 2

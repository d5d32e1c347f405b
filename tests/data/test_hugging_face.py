"""Tables that Hugging Face's library has saved: images and labels in columns."""

import sys

import datasets
import numpy as np
import pytest
from PIL import Image

from sak import config, data
from sak.config.schema import DataConfig, LabelConfig
from sak.data.own import hugging_face
from sak.errors import UserError
from sak.labels import IGNORE
from sak.preflight.survey import survey_archive
from sak.training.train import train


@pytest.fixture(scope="module")
def table(strangers, tmp_path_factory):
    """The stranger's data as a table, with its columns' own names."""
    place = tmp_path_factory.mktemp("table") / "street"
    features = datasets.Features({"photo": datasets.Image(), "annotation": datasets.Image(), "depth": datasets.Image()})
    datasets.disable_progress_bars()

    def cell(path):
        return Image.open(path) if path.exists() else None

    parts = {}
    for split, count in (("train", 6), ("val", 3)):
        rows = {
            "photo": [cell(strangers / f"images/{split}/a{i}.jpg") for i in range(count)],
            "annotation": [cell(strangers / f"semseg/{split}/a{i}.png") for i in range(count)],
            "depth": [cell(strangers / f"depth/{split}/a{i}.png") for i in range(count)],
        }
        parts["train" if split == "train" else "validation"] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(parts).save_to_disk(place)
    return place


def settings(root, **changes):
    standard = {
        "tasks": ["semseg", "depth"],
        "images": "photo",
        "splits": {"val": "validation"},
        "classes": {"semseg": ["background", "person", "animal", "vehicle", "thing"]},
        "labels": {
            "semseg": LabelConfig(path="annotation", values=[10, 20, 30, 40, 50], ignore=[0]),
            "depth": LabelConfig(scale=1000),
        },
        "image_size": [48, 48],
    }
    return DataConfig(dataset="hugging_face", root=str(root), **{**standard, **changes})


def test_a_table_is_read_as_the_folders_that_it_was_made_of(table, strangers):
    found = data.build(settings(table), "train")
    assert found.names == [f"{row:08d}" for row in range(6)]
    for row in range(4):
        stored = np.array(Image.open(strangers / f"semseg/train/a{row}.png")).astype(int)
        np.testing.assert_array_equal(found[row]["semseg"], np.where(stored == 0, IGNORE, stored // 10 - 1))
        depth = np.array(Image.open(strangers / f"depth/train/a{row}.png")).astype(np.float32) / 1000
        np.testing.assert_array_equal(found[row]["depth"][0], np.where(depth == 0, IGNORE, depth))
    assert (found[5]["semseg"] == IGNORE).all()
    assert (found[4]["depth"] == IGNORE).all()


def test_the_doctor_reads_it(table):
    survey = survey_archive(settings(table), progress=False)
    assert (survey.problems, survey.counts) == ([], {"train": 6, "val": 3})


def test_a_student_learns_from_it(table, tiny, tmp_path):
    text = f"""
extends: {tiny.name}
name: table
data:
  dataset: hugging_face
  root: {table}
  image_size: [48, 48]
  tasks: [semseg, depth]
  images: photo
  splits: {{val: validation}}
  classes: {{semseg: [background, person, animal, vehicle, thing]}}
  labels:
    semseg: {{path: annotation, values: [10, 20, 30, 40, 50], ignore: [0]}}
    depth: {{scale: 1000}}
"""
    (tmp_path / "table.yaml").write_text(text)
    settings = config.load(tmp_path / "table.yaml", ["data.workers=1", "stages.multitask.evaluate_every=null"])
    run = train(settings)
    assert run.metrics.is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": "image"}, "has no column 'image': it has photo, annotation, depth; set data.images"),
        ({"splits": {}}, "has no split 'val': it has train, validation; set data.splits"),
        ({"lists": "{split}.txt"}, r"data\.lists is set"),
        ({"labels": {"depth": LabelConfig(scale=1000)}, "tasks": ["semseg"]}, "has no column 'semseg'"),
        ({"root": "/nowhere"}, "no such directory"),
    ],
)
def test_mistakes_are_one_sentence(table, changes, message):
    with pytest.raises(UserError, match=message):
        data.build(settings(**{"root": table, **changes}), "val")


def test_what_is_no_table_is_said_so(strangers):
    with pytest.raises(UserError, match="which datasets cannot load"):
        data.build(settings(strangers), "val")


def test_without_the_library_it_is_said_what_to_install(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    hugging_face.opened.cache_clear()
    with pytest.raises(UserError, match=r"pip install 'sak\[hugging_face\]'"):
        data.build(settings(table), "val")

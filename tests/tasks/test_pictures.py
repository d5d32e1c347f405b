"""What the colours of a task's pictures mean, and that they say it."""

import numpy as np
import pytest

from sak import data
from sak.labels import IGNORE
from sak.tasks.base import IGNORED

EVERY = [(name, dataset) for dataset in ("pascal_context", "nyud") for name in data.described(dataset).tasks]
WITH_CLASSES = [(name, dataset) for name, dataset in EVERY if name in ("semseg", "human_parts")]
WITH_SCALE = [(name, dataset) for name, dataset in EVERY if name in ("saliency", "edge", "depth")]


@pytest.mark.parametrize(("name", "dataset"), WITH_CLASSES)
def test_every_class_has_a_name_and_the_key_shows_the_colour_it_is_drawn_in(name, dataset):
    task = data.described(dataset).build(name)
    assert len(task.classes) == len(set(task.classes)) == task.channels
    label = np.array([[0, 3], [task.channels - 1, IGNORE]])
    key = task.key([label, np.full((2, 2), 1)])
    assert list(key) == [task.classes[0], task.classes[1], task.classes[3], task.classes[-1], "ignored"]
    drawn = task.colour(label)
    assert [key[task.classes[0]].tolist(), key[task.classes[3]].tolist()] == drawn[0].tolist()
    assert [key[task.classes[-1]].tolist(), key["ignored"].tolist()] == drawn[1].tolist()
    assert len(np.unique(list(key.values()), axis=0)) == 5
    assert "ignored" not in task.key([label[:1]])


def test_known_names():
    semseg = {dataset: data.described(dataset).build("semseg").classes for dataset in ("pascal_context", "nyud")}
    assert [semseg["pascal_context"][label] for label in (0, 8, 15, 20)] == ["background", "cat", "person", "tvmonitor"]
    assert [semseg["nyud"][label] for label in (0, 3, 30, 39)] == ["wall", "bed", "person", "other prop"]
    assert data.described("pascal_context").build("human_parts").classes[4] == "lower arm"


def test_normals_say_where_a_surface_faces():
    task = data.described("nyud").build("normals")
    floor = np.zeros((3, 1, 2))
    floor[1] = 1
    floor[:, 0, 1] = IGNORE
    key = task.key([floor])
    assert task.colour(floor)[0].tolist() == [key["faces up"].tolist(), key["ignored"].tolist()]
    assert key["faces up"].tolist() == [127, 255, 127]
    assert key["faces right"][0] > 250 > 10 > key["faces left"][0]


@pytest.mark.parametrize(("name", "dataset"), WITH_SCALE)
def test_a_scale_spans_what_is_drawn_and_what_is_ignored_is_none_of_it(name, dataset):
    task = data.described(dataset).build(name)
    values = np.linspace(task.scale.low, task.scale.high, 256, dtype=np.float32)[None]
    drawn = task.scale.colour(values)[0].astype(int)
    assert len(np.unique(drawn, axis=0)) > 200
    assert np.abs(drawn - IGNORED).sum(axis=1).min() > 60
    beyond = task.scale.colour(np.array([[task.scale.low - 1, task.scale.high + 1, IGNORE]], np.float32))[0]
    assert beyond.tolist() == [drawn[0].tolist(), drawn[-1].tolist(), IGNORED.tolist()]
    assert any(word in task.scale.label for word in ("probability", "metres"))


def test_labels_of_saliency_have_the_colours_of_certain_predictions():
    task = data.described("pascal_context").build("saliency")
    label = np.array([[0, 1, IGNORE]])
    assert task.colour(label)[0, :2].tolist() == task.colour(np.array([[0.0, 1.0]], np.float32))[0].tolist()
    assert task.colour(label)[0, 2].tolist() == IGNORED.tolist()

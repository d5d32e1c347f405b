"""What tasks write to files, and which benchmarks know them."""

import numpy as np
import pytest
import torch

from sak import data
from sak.data.reading import read_normals
from sak.metrics.boundary import evaluate
from sak.tasks.edge import Edge


def predicted(name, dataset="pascal_context"):
    task = data.described(dataset).build(name)
    return task, task.predict(3 * torch.randn(1, task.channels, 6, 8))[0].numpy()


@pytest.mark.parametrize("name", ["semseg", "human_parts"])
def test_classes(name):
    task, prediction = predicted(name)
    stored = task.to_file(prediction)
    assert (stored.dtype, stored.shape) == (np.uint8, (6, 8))
    np.testing.assert_array_equal(stored, prediction)


def test_probabilities_are_truncated():
    for name in ("saliency", "edge"):
        task, prediction = predicted(name)
        np.testing.assert_array_equal(task.to_file(prediction), np.floor(255 * prediction.reshape(6, 8)))
    assert task.to_file(np.full((1, 1, 1), 254.9 / 255)) == 254


def test_normals_are_read_back(tmp_path):
    from PIL import Image

    task, prediction = predicted("normals")
    Image.fromarray(task.to_file(prediction)).save(tmp_path / "n.png")
    np.testing.assert_allclose(read_normals(tmp_path / "n.png").transpose(2, 0, 1), prediction, atol=1 / 255 + 1e-6)


def test_depth_is_metres():
    task, prediction = predicted("depth", "nyud")
    stored = task.to_file(prediction)
    assert (stored.dtype, stored.shape) == (np.float32, (6, 8))
    np.testing.assert_array_equal(stored, prediction[0])


def test_benchmarks_by_tasks_and_channels():
    assert data.fitting({"semseg": 21, "edge": 1}) == ["pascal_context"]
    assert data.fitting({"semseg": 40, "edge": 1}) == ["nyud"]
    assert data.fitting({"normals": 3, "edge": 1}) == ["pascal_context", "nyud"]
    assert data.fitting({"semseg": 19}) == data.fitting({"flow": 2}) == []


@pytest.mark.parametrize("protocol", ["sak", "invpt"])
def test_a_faint_constant_boundary_is_as_good_as_a_certain_one(protocol):
    task = Edge(Edge.default, protocol)
    (faint,) = task.constants([])
    faint = task.to_file(task.predict(faint.view(1, 1, 1, 1).expand(1, 1, 60, 90))[0].numpy())
    truth = np.zeros((60, 90), bool)
    truth[29:31, 20:] = True
    certain = evaluate([np.full_like(faint, 255)], [truth], 0.0075, protocol)
    result = evaluate([faint], [truth], 0.0075, protocol)
    assert result.ods_f == certain.ods_f > 0
    assert result.ois_f == certain.ois_f
    assert result.ap >= certain.ap
    assert task.new_metric().nms == protocol

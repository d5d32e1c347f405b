"""Exported students: what the files hold, and that they do what the student does."""

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import sak
from sak.deploy.export import export, quantised
from sak.deploy.exported import OnnxStudent, check, compare, metrics_of_both
from sak.errors import UserError
from sak.evaluation.subject import open_subject

onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
ROOT = Path(__file__).parents[2]
TASKS = {"semseg": 21, "normals": 3}


@pytest.fixture(scope="module")
def student():
    """Of patches of 8 pixels; batch norms whose statistics are not those of a new one."""
    torch.manual_seed(0)
    options = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8}
    student = sak.Student("vit_tiny_patch16_384", [32, 48], TASKS, {"a": [16, 16]}, levels=[0, 1], stem_options=options)
    student(torch.rand(4, 3, 32, 48))
    return student.eval()


@pytest.fixture(scope="module")
def file(student, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "student.onnx"
    before = student(torch.ones(1, 3, 32, 48)).predictions
    export(student, path, dynamic=True)
    after = student(torch.ones(1, 3, 32, 48)).predictions
    # What exporters trace with must not stay behind in the student.
    assert all(type(maps) is torch.Tensor and torch.equal(maps, before[task]) for task, maps in after.items())
    return path


@pytest.fixture(scope="module")
def session(file):
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("size", [(32, 48), (16, 16), (56, 24), (120, 200)])
def test_one_file_takes_any_number_of_images_of_any_size(student, session, count, size):
    images = torch.rand(count, 3, *size)
    with torch.no_grad():
        expected = student(images).predictions
    found = session.run(list(TASKS), {"images": images.numpy()})
    for task, maps in zip(TASKS, found, strict=True):
        np.testing.assert_allclose(maps, expected[task], atol=1e-4, rtol=0)
    labels = expected["semseg"].argmax(1).numpy()
    assert (found[0].argmax(1) == labels).mean() >= 0.999
    assert len(np.unique(labels)) > 1


def test_the_file_says_what_it_holds(session):
    assert [(given.name, given.type) for given in session.get_inputs()] == [("images", "tensor(float)")]
    assert [output.name for output in session.get_outputs()] == list(TASKS)
    notes = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert notes["patch_size"] == 8
    assert notes["image_size"] == [32, 48]
    assert notes["tasks"]["semseg"]["classes"][15] == "person"
    assert notes["tasks"]["semseg"]["colours"][15] == [192, 128, 128]
    assert notes["tasks"]["normals"] == {"channels": 3, "classes": [], "colours": []}


def test_a_program_of_torch_export(student, tmp_path):
    differences = export(student, tmp_path / "p.pt2", "torch_export", dynamic=True, tasks=["normals"])
    assert [(difference.task, *difference.images) for difference in differences] == [
        ("normals", count, *size) for size in ((32, 48), (24, 32), (48, 72)) for count in (1, 3)
    ]
    notes = {"sak.json": ""}
    program = torch.export.load(tmp_path / "p.pt2", extra_files=notes)
    assert json.loads(notes["sak.json"])["tasks"] == {"normals": {"channels": 3, "classes": [], "colours": []}}
    images = torch.rand(2, 3, 40, 16)
    torch.testing.assert_close(program.module()(images)["normals"], student(images).predictions["normals"])


def near(student, path):
    """The differences of a smaller variant."""
    differences = list(compare(student, OnnxStudent(path), {"semseg": True}, dynamic=True))
    assert 1e-6 < max(difference.largest for difference in differences) < 0.1  # of logits of about 1
    assert min(difference.alike for difference in differences) > 0.8
    return True


def test_weights_in_8_bits_are_near(student, file, tmp_path):
    onnx.save_model(quantised(onnx.load(file)), tmp_path / "int8.onnx")
    assert near(student, tmp_path / "int8.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node]
    assert kinds.count("MatMulInteger") >= 2 * 4  # of two blocks' linear maps


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_variants_are_near(student, file, tmp_path, precision):
    path = tmp_path / "small.onnx"
    export(student, path, dynamic=True, tasks=["semseg"], precision=precision)
    assert near(student, path)
    model = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_modelmeta()
    assert json.loads(model.custom_metadata_map["precision"]) == precision


def test_a_file_that_differs_is_not_kept(student, tmp_path, monkeypatch):
    class Other(nn.Module):
        def __init__(self, path):
            super().__init__()

        def forward(self, images):
            output = student(images)
            output.predictions["normals"] = output.predictions["normals"] + 2e-4
            return output

    (tmp_path / "s.pt2").write_text("what was there")
    monkeypatch.setattr("sak.deploy.export.ProgramStudent", Other)
    with pytest.raises(UserError, match=r"differs from the student in normals by 0.0002 .* and is not kept"):
        export(student, tmp_path / "s.pt2", "torch_export")
    assert [path.name for path in tmp_path.iterdir()] == ["s.pt2"]
    assert (tmp_path / "s.pt2").read_text() == "what was there"


def test_labels_are_compared(student):
    """One in a thousand may differ, where two classes are as likely."""

    class Other(nn.Module):
        def forward(self, images):
            output = student(images)
            semseg = output.predictions["semseg"]
            semseg[:, :, :2] = semseg[:, :, :2].roll(1, dims=1)
            return output

    with torch.no_grad():
        (difference,) = compare(student, Other(), {"semseg": True}, dynamic=False)
    assert difference.images == (1, 32, 48)
    assert difference.alike == pytest.approx(15 / 16)
    with pytest.raises(UserError, match="semseg"):
        check([difference])


def test_metrics_of_both_are_equal(trained, tmp_path):
    subject = open_subject(str(trained))
    export(subject.student, tmp_path / "s.pt2", "torch_export", tasks=["human_parts", "normals"])
    rows = metrics_of_both(subject, tmp_path / "s.pt2", "torch_export", ["human_parts", "normals"])
    assert rows[0][:4] == ("task", "metric", "student", "file")
    assert [row[0] for row in rows[1:]] == ["human_parts", "normals"]
    assert all(row[2] == row[3] != "-" for row in rows[1:])


def test_the_example_serves_without_torch(file, tmp_path):
    port = 18000 + int(time.time()) % 2000
    code = f"import sys; sys.modules['torch'] = None; sys.argv = ['', {str(file)!r}, '{port}']\n"
    code += (ROOT / "examples" / "serve_onnx.py").read_text()
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as server:
        try:
            Image.new("RGB", (70, 50), (200, 30, 30)).save(tmp_path / "a.png")
            for _ in range(100):
                time.sleep(0.2)
                try:
                    data = (tmp_path / "a.png").read_bytes()
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/semseg", data, timeout=10) as answer:
                        (tmp_path / "b.png").write_bytes(answer.read())
                    break
                except (ConnectionError, urllib.error.URLError):
                    assert server.poll() is None, server.stderr.read()
        finally:
            server.terminate()
    labels = Image.open(tmp_path / "b.png")
    assert (labels.size, labels.mode) == ((70, 50), "P")

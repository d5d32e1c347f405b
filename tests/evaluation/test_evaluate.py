import importlib.util
import os
import re
import sys

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from sak import config, data
from sak.bundles.build import build_committee, build_student, build_tasks
from sak.data.faulty_images import Skips
from sak.data.pascal_context import PascalContext
from sak.errors import UserError
from sak.evaluation import constants, metrics_table
from sak.evaluation.constants import constant_predictions, kept_constants
from sak.evaluation.evaluate import evaluate
from sak.evaluation.figures import prediction_panel, routing_heat_map
from sak.tasks import TASKS


@pytest.fixture
def parts(tiny):
    settings = config.load(tiny)
    tasks = build_tasks(settings.data)
    student = build_student(settings, tasks, build_committee(settings).dims)
    return settings, tasks, student, data.build(settings.data, "val")


def test_metrics_do_not_depend_on_the_batch_size(parts):
    _, tasks, student, dataset = parts
    one, two = (evaluate(student, tasks, dataset, size, 0, Accelerator()) for size in (1, 2))
    for name in tasks:
        assert one.metrics[name] == pytest.approx(two.metrics[name], rel=1e-4)
    for name, levels in one.routing.items():
        for level, weights in enumerate(levels):
            assert weights.shape == (len(dataset), 2)
            torch.testing.assert_close(weights, two.routing[name][level])
    assert student.training  # as it was before


def test_a_prediction_that_is_no_number_is_named(parts):
    _, tasks, student, dataset = parts
    student.heads["human_parts"].classify.bias.data[0] = float("nan")
    with pytest.raises(
        FloatingPointError, match=f"human_parts of {dataset.names[0]}, {dataset.names[1]} is not finite"
    ):
        evaluate(student, tasks, dataset, 2, 0, Accelerator())


@pytest.mark.slow
def test_workers_that_match_boundaries_change_nothing(parts):
    _, tasks, student, dataset = parts
    alone, shared = (evaluate(student, tasks, dataset, 1, workers, Accelerator()) for workers in (0, 1))
    assert alone.metrics == shared.metrics


def test_constants_are_what_the_metric_gives_a_constant(parts):
    _, tasks, _, dataset = parts
    constants = constant_predictions(tasks, dataset, 1, 0, Accelerator())
    assert {name: list(values) for name, values in constants.items()} == {
        name: list(task.measures) for name, task in tasks.items()
    }
    labels = np.concatenate([dataset[index]["semseg"].numpy().ravel() for index in range(len(dataset))])
    labels = labels[labels != 255]
    share = np.bincount(labels).max() / len(labels)
    assert constants["semseg"]["miou"] == pytest.approx(100 * share / 21, rel=1e-5)


def test_constants_decode_no_image(parts, archive, monkeypatch):
    settings, tasks, _, dataset = parts
    constants = constant_predictions(tasks, dataset, 2, 0, Accelerator())
    settings.data.root = str(archive)
    monkeypatch.setattr(data.archive, "read_image", lambda path: pytest.fail(f"{path} is decoded"))
    assert constant_predictions(tasks, data.build(settings.data, "val"), 2, 0, Accelerator()) == constants


@pytest.mark.parametrize("index", [0, 1])
def test_constants_leave_out_what_an_evaluation_has_left_out(parts, archive, tmp_path, index):
    """An image that cannot be decoded is left out together with its labels, which could be."""
    settings, tasks, student, _ = parts
    settings.data.root = str(archive)
    dataset = data.build(settings.data, "val")
    dataset.image_files[index].write_bytes(dataset.image_files[index].read_bytes()[:500])
    skips = Skips(tmp_path / "skipped.txt", "val", 2, 0.5, replaced=False)
    evaluate(student, tasks, dataset, 2, 0, Accelerator(), skips=skips)
    assert list(skips.listed()) == [index]
    constants = constant_predictions(tasks, dataset, 2, 0, Accelerator(), skips=skips)
    path = archive / "ImageSets" / "Context" / "val.txt"
    path.write_text(dataset.names[1 - index])
    assert constants == constant_predictions(tasks, data.build(settings.data, "val"), 2, 0, Accelerator())


def test_labels_alone_are_those_of_the_items(archive):
    whole = PascalContext(archive, "val", image_size=(40, 96))  # smaller than the images: they are shrunk
    labels = whole.without_images()
    for index in range(2):
        item, label = whole[index], labels[index]
        assert item.keys() - label.keys() == {"image"}
        for key, value in label.items():
            assert torch.equal(item[key], value) if isinstance(value, torch.Tensor) else item[key] == value
    with pytest.raises(ValueError, match="an augmentation looks at the images"):
        PascalContext(archive, "train", augment=True).without_images()


def test_tables(parts):
    _, tasks, _, _ = parts
    metrics = {name: dict.fromkeys(task.measures, 12.345) for name, task in tasks.items()}
    constants = {name: dict.fromkeys(task.measures, 6.0) for name, task in tasks.items()}
    written = re.sub(" +", " ", metrics_table.markdown("x", tasks, metrics, constants))
    assert "| normals | mean_error | 12.35 | 6.00 | degrees | lower |" in written
    assert "under the protocol `sak`" in written
    without = {name: task for name, task in tasks.items() if name != "edge"}
    assert "protocol" not in metrics_table.markdown("x", without, metrics, constants)
    lines = metrics_table.console(tasks, metrics, constants).splitlines()
    assert len(lines) == 2 + sum(len(task.measures) for task in tasks.values())
    assert re.split("  +", lines[0]) == [
        "task", "metric", "student", "baseline (best constant)", "unit", "better is",
    ]  # fmt: skip


def test_figures_have_a_panel_for_everything(parts):
    _, tasks, student, dataset = parts
    batch = torch.utils.data.default_collate([dataset[0], dataset[1]])
    batch["name"][1] = "a_name_too_long_for_its_row_0123456789"
    with torch.no_grad():
        output = student.eval()(batch["image"])
    panel = prediction_panel(batch, output, tasks)
    pictures = [axis for axis in panel.axes if axis.images]
    assert len(pictures) == 2 * (1 + 2 * len(tasks))
    assert [axis.get_ylabel() for axis in pictures if axis.get_ylabel()] == [dataset.names[0], "…_row_0123456789"]
    for task in tasks:
        assert {f"{task}\ntruth", f"{task}\nprediction"} <= {axis.get_title() for axis in pictures}
    shown = {text.get_text() for axis in panel.axes if axis.legend_ for text in axis.legend_.get_texts()}
    labels = torch.cat([batch["semseg"], output.predictions["semseg"].argmax(1)]).unique().tolist()
    assert {tasks["semseg"].classes[label] for label in labels if label != 255} <= shown
    assert "faces the camera" in shown
    assert {"probability of being salient", "probability of a boundary"} <= {
        bar.get_xlabel() for axis in panel.axes for bar in axis.child_axes
    }
    heat_map = routing_heat_map(output.routing, student.sources, student.levels)
    titles = [axis.get_title() for axis in heat_map.axes]
    assert titles[:4] == ["block 0", "block 1", "block 2", "block 3"]
    shown = [float(text.get_text()) for text in heat_map.axes[0].texts]
    assert sum(shown) == pytest.approx(len(tasks), abs=0.05)


def test_a_head_of_mmsegmentation_by_config(tiny):
    settings = config.load(tiny, ["student.heads.edge={type: mmseg.SegformerHead, options: {channels: 16}}"])
    student = build_student(settings, build_tasks(settings.data), {"dinov2": [24] * 4})
    assert type(student.heads["edge"].head).__name__ == "SegformerHead"
    assert type(student.heads["semseg"]).__name__ == "Head"
    settings = config.load(tiny, ["student.head.type=mmseg.SegformerHead", "student.head.options={channels: 16}"])
    student = build_student(settings, build_tasks(settings.data), {"dinov2": [24] * 4})
    assert {type(head.head).__name__ for head in student.heads.values()} == {"SegformerHead"}


def test_heads_of_unknown_tasks_are_refused(tiny):
    settings = config.load(tiny, ["student.heads.depth={type: sak}"])
    with pytest.raises(UserError, match=r"student\.heads names 'depth', which is not among data.tasks"):
        build_student(settings, build_tasks(settings.data), {})


@pytest.fixture
def kept(tmp_path, archive, monkeypatch):
    """Asks for the constants on a copy of the archive; returns them, and whether they were computed."""
    real, calls = constant_predictions, []
    monkeypatch.setattr(constants, "constant_predictions", lambda *arguments: calls.append(1) or real(*arguments))

    def ask(names=("semseg", "normals"), size=(96, 96), split="val"):
        calls.clear()
        tasks = {name: PascalContext.DESCRIPTION.build(name) for name in names}
        dataset = PascalContext(archive, split, tasks=names, image_size=size)
        return kept_constants(tmp_path / "kept", tasks, dataset, 1, 0, Accelerator()), bool(calls)

    return ask


def test_constants_are_computed_once_for_the_same_files(kept, tmp_path):
    first, computed = kept()
    assert computed
    assert kept() == (first, False)
    (file,) = (tmp_path / "kept").iterdir()
    file.write_text("{")  # as corrupt
    assert kept() == (first, True)


def rewritten(archive):
    """Another label of the same length in bytes."""
    (file,) = (archive / "semseg" / "VOC12").glob(f"{(archive / LIST).read_text().split()[0]}.png")
    file.write_bytes(file.read_bytes())


def fewer(archive):
    (archive / LIST).write_text((archive / LIST).read_text().split()[0])


LIST = "ImageSets/Context/val.txt"


@pytest.mark.parametrize(
    ("asked", "change"),
    [
        ({"names": ("semseg",)}, None),
        ({"size": (96, 112)}, None),
        ({"split": "train"}, None),
        ({}, rewritten),
        ({}, fewer),
        ({}, lambda archive: os.utime(archive / "json" / "nyu_classes.json", (1, 1))),
    ],
)
def test_constants_of_anything_else_are_computed_anew(kept, archive, asked, change):
    kept()
    if change:
        change(archive)
    assert kept(**asked)[1]
    assert not kept(**asked)[1]


def test_constants_of_other_code_are_computed_anew(kept, monkeypatch, tmp_path):
    kept()
    (tmp_path / "task.py").write_text("from sak.tasks import SemSeg\nclass Other(SemSeg): pass\n")
    spec = importlib.util.spec_from_file_location("other_task", tmp_path / "task.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "other_task", module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(TASKS, "semseg", module.Other)
    assert kept()[1]
    assert not kept()[1]
    (tmp_path / "task.py").write_text("from sak.tasks import SemSeg\nclass Other(SemSeg): weight = 2\n")
    assert kept()[1]

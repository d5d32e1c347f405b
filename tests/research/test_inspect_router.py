"""tools/inspect_router.py on a tiny run, on its bundle, on images of one's own, and on what it must refuse."""

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from sak import Student, config, data
from sak.bundles.build import build_tasks
from sak.bundles.bundle import load_bundle
from sak.evaluation.evaluate import evaluate
from sak.evaluation.masking import MaskedStudents
from sak.evaluation.subject import open_subject

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT / "tests" / "fixtures" / "pascal_format" / "PASCALContext"
TASKS = ["semseg", "human_parts", "saliency", "normals", "edge"]


@pytest.fixture
def inspect(call_tool):
    return functools.partial(call_tool, "inspect_router")


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "tiny"))


def small(path, **changes):
    """A bundle for 32 x 32 pixels, untrained."""
    torch.manual_seed(0)
    arguments = {
        "stem": "vit_tiny_patch16_384",
        "stem_options": {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 8},
        "image_size": (32, 32),
        "levels": (0, 1),
        "tasks": {"semseg": 21, "edge": 1},
        "teachers": {"dinov2": [16] * 2, "clip": [16] * 2},
    }
    Student(**{**arguments, **changes}).save_pretrained(path)
    return path


def test_a_run_on_its_validation_set(inspect, run, tmp_path):
    code, out, errors = inspect(run)
    assert (code, errors) == (0, [])
    inspection = run / "inspection"
    result = json.loads((inspection / "inspection.json").read_text())
    settings = config.load(run / "config.yaml")
    tasks, dataset = build_tasks(settings.data), data.build(settings.data, "val")
    student = load_bundle(run / "student")
    whole = evaluate(student, tasks, dataset, 2, 0, Accelerator())
    assert result["metrics"] == whole.metrics
    assert list(result["routers"]) == TASKS
    for task, levels in whole.routing.items():
        for block, weights in enumerate(levels):
            mean = result["routers"][task][str(block)]["mean"]
            assert list(mean.values()) == pytest.approx(weights.mean(0).tolist())
    students = MaskedStudents(open_subject(str(run)), tasks, dataset, Accelerator(), tmp_path / "masked.json")
    for source in student.sources:
        (masked,) = students.metrics([[source]])
        assert result["without"][source] == masked
        assert result["change"][source]["normals"] == pytest.approx(
            whole.metrics["normals"]["mean_error"] - masked["normals"]["mean_error"]
        )
    # the run's evaluations, after steps 2 and 4 of the second stage
    assert [step for step, _ in result["history"]["edge"]["0"]["dinov2"]] == [2, 4]
    assert result["history"]["edge"]["0"]["dinov2"][-1][1] == pytest.approx(mean_of(result, "edge", "0", "dinov2"))
    # the run's log of training batches, after every step
    training = result["history_training"]
    assert list(training) == TASKS
    of_router = [dict(training["edge"]["0"][source]) for source in student.sources]
    assert list(of_router[0]) == [1, 2, 3, 4]
    assert all(sum(weights) == pytest.approx(1) for weights in zip(*(each.values() for each in of_router), strict=True))
    weights = np.load(inspection / "weights.npz")
    np.testing.assert_allclose(weights["edge.block3"], whole.routing["edge"][3].numpy())
    assert weights["names"].tolist() == dataset.names
    for name in ("weights", "information", "leaning", "history", "knock_out"):
        assert Image.open(inspection / f"{name}.png").width > 200
    assert not list(inspection.glob("tokens-*"))
    assert list((inspection / "events").iterdir())
    assert "without stem, dinov2" in out
    assert "semseg" in out


def mean_of(result, task, block, source):
    return result["routers"][task][block]["mean"][source]


def test_what_was_measured_is_not_measured_again(inspect, tmp_path):
    call = [small(tmp_path / "bundle"), "--data", ARCHIVE, "--workers", "0", "--output", tmp_path / "out"]
    assert inspect(*call)[0] == 0
    file = tmp_path / "out" / "knock_out.json"
    kept = json.loads(file.read_text())
    kept["metrics"]["dinov2"]["edge"]["ods_f"] = 99.0
    file.write_text(json.dumps(kept))
    assert inspect(*call)[0] == 0
    result = json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert result["without"]["dinov2"]["edge"]["ods_f"] == 99.0
    assert inspect(*call, "--limit", "1")[0] == 0  # other images
    result = json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert result["images"] == "1 val images of pascal_context"
    assert result["without"]["dinov2"]["edge"]["ods_f"] != 99.0


def test_images_of_ones_own_need_no_data(inspect, tmp_path):
    bundle = small(tmp_path / "bundle", tasks={"colour": 3})
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for number, place in enumerate(("b.png", "a.jpg", "deep/c.png")):
        Image.new("RGB", (40 + 10 * number, 30), (80 * number, 100, 50)).save(folder / place)
    (folder / "notes.txt").write_text("no image")
    Image.new("L", (16, 16), 9).save(tmp_path / "grey.png")
    code, out, errors = inspect(bundle, folder, tmp_path / "grey.png", "--workers", "0", "--output", tmp_path / "out")
    assert (code, errors) == (0, [])
    result = json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert result["images"] == "4 given images"
    assert {entry["image"] for entry in result["leaning"]["clip"]} == {"a", "b", "c", "grey"}
    order = [entry["weight"] for entry in result["leaning"]["clip"]]
    assert order == sorted(order, reverse=True)
    assert result["metrics"] == result["without"] == result["history"] == {}
    assert list(result["routers"]["colour"]["0"]["information"]) == ["image"]
    assert "without it" not in out
    assert not (tmp_path / "out" / "knock_out.png").exists()


@pytest.mark.parametrize("router", ["token", "token_topk"])
def test_a_router_of_tokens_shows_them_on_the_images(inspect, tmp_path, router):
    bundle = small(tmp_path / "bundle", router=router)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    code, _, errors = inspect(bundle, tmp_path / "a.png", "--workers", "0", "--output", tmp_path / "out")
    assert (code, errors) == (0, [])
    assert {path.name for path in (tmp_path / "out").glob("tokens-*")} == {"tokens-semseg.png", "tokens-edge.png"}
    information = json.loads((tmp_path / "out" / "inspection.json").read_text())["routers"]["edge"]["0"]["information"]
    assert information["token"] > information["image"] == pytest.approx(0, abs=1e-9)  # of one image


MISTAKES = {
    "nothing there": (lambda p: [p / "nowhere"], "is no run directory"),
    "unfinished": (lambda p: [unfinished(p)], "is unfinished: it has no student/ yet"),
    "sum": (lambda p: [small(p / "b", router="sum"), "--data", ARCHIVE], "mixes its sources with fixed weights"),
    "equal": (lambda p: [small(p / "b", router="equal"), "--data", ARCHIVE], "mixes its sources with fixed weights"),
    "no paths": (lambda p: [small(p / "b", paths="none"), "--data", ARCHIVE], "has the stem alone to read"),
    "distilled only": (lambda p: [small(p / "b", tasks={})], "has no task heads"),
    "no data": (lambda p: [small(p / "b")], "say where pascal_context lies: --data ROOT"),
    "no such image": (lambda p: [small(p / "b"), p / "a.png"], "there is no image"),
    "no image": (lambda p: [small(p / "b"), text(p / "a.png")], "a.png is no image that can be read"),
    "corrupt image": (lambda p: [small(p / "b"), corrupt(p / "a.png")], "a.png cannot be read as an image"),
    "empty folder": (lambda p: [small(p / "b"), (p / "empty").mkdir() or p / "empty"], "holds no image"),
}


def unfinished(path):
    (path / "run").mkdir()
    text = (ROOT / "tests" / "fixtures" / "tiny.yaml").read_text()
    (path / "run" / "config.yaml").write_text(text.format(output=path, root=ARCHIVE))
    return path / "run"


def text(path):
    path.write_text("not a picture")
    return path


def corrupt(path):
    """Its header and checksums are well, its pixels are not there."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path.with_suffix(".jpg"))
    path.write_bytes(path.with_suffix(".jpg").read_bytes()[:700])
    return path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(inspect, tmp_path, mistake):
    arguments, message = MISTAKES[mistake]
    code, _, errors = inspect(*arguments(tmp_path))
    assert (code, len(errors)) == (2, 1)
    assert message in errors[0]

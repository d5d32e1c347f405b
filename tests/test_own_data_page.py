"""The page about own data: its configs load, its commands run, its tasks learn."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sak import config, data
from sak.bundles.build import build_tasks

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")
FEW = ["stages.distill.steps=2", "stages.multitask.steps=2", "stages.multitask.evaluate_every=null",
       "stages.distill.batch_size=2", "stages.multitask.batch_size=2", "data.workers=0"]  # fmt: skip


def blocks(language):
    """{file name: content} of those that say theirs in their first line; the others by number."""
    found = {}
    for number, text in enumerate(re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)):
        name = re.match(r"# (\S+)\n", text)
        found[name[1] if name else str(number)] = text
    return found


@pytest.fixture(scope="module")
def place(strangers, tmp_path_factory):
    """Where a user of the page works: his data, his files, and a checkout."""
    place = tmp_path_factory.mktemp("page")
    shutil.copytree(strangers, place / "street")
    for name in ("configs", "teachers", "tools"):
        (place / name).symlink_to(ROOT / name)
    for name, text in {**blocks("yaml"), **blocks("python")}.items():
        (place / name).write_text(text)
    rng = np.random.default_rng(0)
    for path in sorted(strangers.glob("images/*/*.jpg")):
        for task, values in (("materials", rng.integers(0, 3, (48, 48))), ("height", rng.integers(0, 300, (48, 48)))):
            file = place / "street" / task / path.parent.name / f"{path.stem}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint16 if task == "height" else np.uint8)).save(file)
    return place


@pytest.fixture
def run_commands(place, call_tool, monkeypatch):
    """Run a block of commands, with few steps."""

    def run(block):
        monkeypatch.chdir(place)
        for line in block.strip().splitlines():
            words = [word for word in shlex.split(line) if not word.startswith("PYTHONPATH=")]
            assert words[0] == "python"
            name = Path(words[1]).stem
            few = FEW if name in ("train", "doctor") else []
            code, out, errors = call_tool(name, *words[2:], *few)
            assert (code, errors) == (0, []), (line, out)

    return run


def test_folders(run_commands, place):
    run_commands(blocks("bash")["0"])
    metrics = json.loads((place / "runs/street/metrics.json").read_text())
    assert metrics.keys() == {"semseg", "depth"}
    assert sorted(os.listdir(place / "runs/street/evaluation/semseg")) == ["a0.png", "a1.png", "a2.png"]


def test_own_tasks(run_commands, place, monkeypatch, call_tool):
    monkeypatch.syspath_prepend(place)
    run_commands(blocks("bash")["2"])
    metrics = json.loads((place / "runs/street_tasks/metrics.json").read_text())
    assert {task: list(values) for task, values in metrics.items()} == {
        "semseg": ["miou"],
        "materials": ["miou"],
        "height": ["mae"],
    }
    settings = config.load(place / "street_tasks.yaml")
    settings.data.root = str(place / "street")
    heights = [np.array(Image.open(path)) / 100 for path in (place / "street/height/val").iterdir()]
    expected = np.abs(np.stack(heights) - np.median(heights)).mean()
    constants = json.loads((place / "runs/street_tasks/constants.json").read_text())
    assert constants["height"]["mae"] == pytest.approx(expected, abs=0.01)
    (label,) = data.build(settings.data, "val", tasks=["height"])[0]["height"]
    np.testing.assert_allclose(
        label[40:88, 40:88], np.array(Image.open(place / "street/height/val/a0.png")) / 100, 1e-6
    )
    bundle = json.loads((place / "runs/street_tasks/student/config.json").read_text())["descriptions"]
    assert {name: said["task"] for name, said in bundle.items()} == {
        "semseg": "semseg",
        "materials": "my_tasks:Materials",
        "height": "my_tasks:Height",
    }
    assert bundle["materials"]["classes"] == ["other", "skin", "metal"]
    monkeypatch.chdir(place)
    code, _, errors = call_tool("evaluate", "runs/street_tasks")  # reads the tasks from the bundle
    assert (code, errors) == (0, [])
    found = json.loads((place / "runs/street_tasks/evaluation/metrics.json").read_text())
    assert found == metrics


def test_coco_and_a_table(place, run_commands):
    annotation = {"image_id": 1, "category_id": 3, "area": 4, "segmentation": [[2, 2, 6, 2, 6, 6, 2, 6]]}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 8, "width": 8}],
        "categories": [{"id": 3, "name": "car"}, {"id": 4, "name": "tree"}],
        "annotations": [annotation],
    }
    (place / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        (place / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    run_commands(blocks("bash")["1"])
    assert np.array(Image.open(place / "coco/semseg/val2017/a.png")).sum() == 16
    table = config.load(place / "table.yaml", ["data.classes={semseg: [wall, building]}"])
    assert build_tasks(table.data)["semseg"].classes == ("wall", "building")


@pytest.mark.parametrize(
    ("name", "classes"), [("ade20k.yaml", 150), ("cityscapes.yaml", 19), ("voc.yaml", 21), ("coco.yaml", 3)]
)
def test_trees_that_are_there_already(place, name, classes):
    """Their readings are tested beside the class."""
    settings = config.load(place / name)
    settings.data.root = str(place / settings.data.root)
    if classes == 150:
        (place / "ADEChallengeData2016").mkdir()
        names = [f"class {number}" for number in range(150)]
        (place / "ADEChallengeData2016/classes.txt").write_text("\n".join(names))
    assert build_tasks(settings.data)["semseg"].channels == classes

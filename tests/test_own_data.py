"""A stranger's data from the folder to the student that knows its classes, and what the doctor says of mistakes."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from sak import config
from sak.bundles.bundle import load_bundle
from sak.bundles.tasks import tasks_of
from sak.preflight.doctor import diagnose
from sak.preflight.summary import REMEDIES
from sak.training.train import train

NAMES = ["background", "person", "animal", "vehicle", "thing"]


@pytest.fixture(scope="module")
def experiment(strangers, strangers_text, tiny_text, tmp_path_factory):
    """The config file."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "tiny.yaml").write_text(tiny_text.format(output=folder / "runs", root="unused"))
    (folder / "own.yaml").write_text(strangers_text.format(tiny="tiny.yaml", root=strangers))
    return folder / "own.yaml"


@pytest.fixture(scope="module")
def run(experiment, drawing):
    with drawing():
        return train(config.load(experiment)).path


def test_fifteen_lines_train_and_evaluate_five_classes(experiment, run, strangers):
    assert len(experiment.read_text().splitlines()) <= 15
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics.keys() == {"semseg", "depth"}
    constants = json.loads((run / "constants.json").read_text())
    # A constant is right on its class alone: the share of background among the labelled pixels, over five classes.
    labels = np.stack([np.array(Image.open(path)) for path in sorted((strangers / "semseg/val").iterdir())])
    expected = 100 * (labels == 10).sum() / (labels > 0).sum() / 5
    assert constants["semseg"]["miou"] == pytest.approx(expected)


def test_the_student_keeps_names_and_colours(run):
    task = tasks_of(load_bundle(run / "student"))["semseg"]
    assert list(task.classes) == NAMES
    assert task.colour(np.array([[1, 4]])).tolist() == [[[220, 20, 60], [240, 200, 0]]]
    assert list(task.key([np.array([[3]])])) == ["vehicle"]


def test_evaluate_and_predict_through_the_tools(run, strangers, call_tool, tmp_path):
    code, _, errors = call_tool("evaluate", run, "--save-maps", "--output", tmp_path / "found")
    assert (code, errors) == (0, [])
    assert json.loads((tmp_path / "found/metrics.json").read_text()) == json.loads((run / "metrics.json").read_text())
    predicted = np.array(Image.open(tmp_path / "found/semseg/a0.png"))
    assert predicted.shape == (48, 48)
    assert predicted.max() < 5


def test_a_perfect_prediction_scores_100(experiment, strangers):
    """And not 5 of PASCAL's 21 classes, 23.8."""
    from sak import data
    from sak.bundles.build import build_tasks

    settings = config.load(experiment)
    task, metric = build_tasks(settings.data)["semseg"], build_tasks(settings.data)["semseg"].new_metric()
    images = data.build(settings.data, "train")
    for index in range(len(images)):
        label = images[index]["semseg"][None]
        metric.update(label.where(label != 255, 0), label)
    assert task.measured(metric) == {"miou": 100.0}


def test_a_bundle_alone_knows_the_names_but_not_how_they_are_stored(run, strangers, call_tool, tmp_path):
    """So labels in the usual form need no more than the place."""
    for split in ("train", "val"):
        shutil.copytree(strangers / f"images/{split}", tmp_path / f"usual/images/{split}")
        for task in ("semseg", "depth"):
            (tmp_path / f"usual/{task}/{split}").mkdir(parents=True)
        for path in sorted((strangers / f"semseg/{split}").iterdir()):
            stored = np.array(Image.open(path))
            usual = np.where(stored == 0, 255, stored // 10 - 1).astype(np.uint8)
            Image.fromarray(usual).save(tmp_path / f"usual/semseg/{split}" / path.name)
        for path in sorted((strangers / f"depth/{split}").iterdir()):
            np.save(tmp_path / f"usual/depth/{split}/{path.stem}.npy", np.array(Image.open(path)) / np.float32(1000))
    given = (run / "student", "--dataset", "folders", "--output", tmp_path / "found")
    code, _, errors = call_tool("evaluate", *given, "--data", tmp_path / "usual")
    assert (code, errors) == (0, [])
    assert json.loads((tmp_path / "found/metrics.json").read_text()) == json.loads((run / "metrics.json").read_text())
    code, _, (error,) = call_tool("evaluate", *given, "--overwrite", "--data", strangers)
    assert code == 2
    assert "but the 5 classes are stored as 0, 1, 2, 3, 4" in error or "needs a scale" in error


# --- the doctor -----------------------------------------------------------------------------------------------------


def doctor(experiment, root, *changes):
    survey, plan = diagnose(config.load(experiment, [f"data.root={root}", *changes]), progress=False)
    assert all(problem.kind in REMEDIES for problem in survey.problems)
    return survey, plan


def test_nothing_is_wrong_with_it(experiment, strangers):
    survey, plan = doctor(experiment, strangers)
    assert (survey.problems, survey.counts) == ([], {"train": 6, "val": 3})
    assert plan.stages["multitask"].steps == 4
    facts = [f"{subject}: {fact}" for subject, fact in survey.facts]
    assert any(fact.startswith("semseg: 1 of 6 train images have no label, the first is") for fact in facts)
    assert any("2 of 6 train images have no label" in fact and "a4.jpg" in fact for fact in facts)
    stored = [np.array(Image.open(path)) for path in strangers.glob("semseg/*/*.png")]
    valid = sum((values > 0).sum() for values in stored)
    shares = [sum((values == number).sum() for values in stored) / valid for number in (10, 20, 30, 40, 50)]
    (line,) = [fact for fact in facts if fact.startswith("semseg, pixels: ")]
    assert f"background {shares[0]:.1%}" in line
    assert f"vehicle {shares[3]:.1%}" in line


def another_number(root):
    path = root / "semseg/train/a1.png"
    values = np.array(Image.open(path))
    values[5, 5] = 70
    Image.fromarray(values).save(path)
    return []


def another_size(root):
    Image.open(root / "semseg/train/a1.png").resize((40, 40), Image.Resampling.NEAREST).save(
        root / "semseg/train/a1.png"
    )
    return []


def no_picture(root):
    (root / "images/val/a2.jpg").write_bytes((root / "images/val/a2.jpg").read_bytes()[:300])
    return []


def another_folder(root):
    (root / "semseg").rename(root / "masks")
    return []


def another_unit(root):
    return ["data.labels.depth.scale=1"]


def a_jpeg(root):
    Image.open(root / "semseg/val/a1.png").save(root / "semseg/val/a1.jpg", quality=95)
    (root / "semseg/val/a1.jpg").rename(root / "semseg/val/a1.png")
    return []


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (another_number, {"range": "a1.png holds 70", "numbers": "8 maps hold 0, 10, 20, 30, 40, 50, 70: 7 different"}),
        (another_size, {"size": "is (40, 40) pixels (height, width), but its image"}),
        (no_picture, {"corrupt": "a2.jpg is corrupt"}),
        (another_folder, {"no labels": "semseg/train/a0.png; not one image of train has a label of it"}),
        (another_unit, {"depth": "these look like millimetres"}),
        (a_jpeg, {"content": "a1.png is a JPEG, which changes the classes near borders"}),
    ],
)
def test_the_doctor_says_what_is_wrong(experiment, strangers, tmp_path, broken, expected):
    root = shutil.copytree(strangers, tmp_path / "street")
    survey, _ = doctor(experiment, root, *broken(root))
    found = {problem.kind: problem.detail for problem in reversed(survey.problems)}
    assert found.keys() == expected.keys()
    for kind, sentence in expected.items():
        assert sentence in found[kind]


def test_the_doctor_counts_the_classes_that_nobody_names(experiment, strangers):
    """And examines all else with stand-ins."""
    lines = [
        line for line in experiment.read_text().splitlines() if not line.strip().startswith(("classes", "colours"))
    ]
    for values, sentence in (
        ("{ignore: [0]}", "8 maps hold 0, 10, 20, 30, 40, 50: 5 classes if 0 is ignored; then set "
         "data.labels.semseg.values to [10, 20, 30, 40, 50]"),
        ("{values: [10, 20, 30, 40, 50], ignore: [0]}", "8 maps hold 0, 10, 20, 30, 40, 50: 5 classes if 0 is ignored"),
    ):  # fmt: skip
        config_file = experiment.with_name("unnamed.yaml")
        semseg = [f"    semseg: {values}" if line.startswith("    semseg:") else line for line in lines]
        config_file.write_text("\n".join(semseg))
        survey, plan = doctor(config_file, strangers)
        assert [tuple(problem) for problem in survey.problems] == [("unnamed classes", "semseg", sentence)]
        assert plan.parameters["heads"] > 0

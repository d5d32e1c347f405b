"""Neighbours and a linear probe against plain sums and a solver of scipy's; and tools/classify_features.py."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import minimize

from sak import Student
from sak.evaluation.sources import pooled
from sak.research.classification import classifiers
from sak.research.classification.classifiers import fit, held_out, linear_probe, nearest_neighbours

ROOT = Path(__file__).parents[2]


def clouds(count, seed, apart=2.0, dim=6, classes=3):
    """Features around a centre for each class, and the classes."""
    generator = torch.Generator().manual_seed(seed)
    centres = apart * torch.eye(classes, dim)
    labels = torch.arange(count) % classes
    return centres[labels] + 0.5 * torch.randn(count, dim, generator=generator), labels


def test_neighbours_vote_as_in_plain_python(monkeypatch):
    monkeypatch.setattr(classifiers, "NEIGHBOURS", 5)
    monkeypatch.setattr(classifiers, "CHUNK", 4)
    features, labels = clouds(40, 0, apart=0.6)
    unknown, _ = clouds(11, 1, apart=0.6)
    expected = []
    for vector in unknown.tolist():
        cosines = []
        for known, label in zip(features.tolist(), labels.tolist(), strict=True):
            dot = sum(a * b for a, b in zip(vector, known, strict=True))
            cosines.append((dot / math.hypot(*vector) / math.hypot(*known), label))
        votes = [0.0] * 3
        for cosine, label in sorted(cosines)[-5:]:
            votes[label] += math.exp(cosine / 0.07)
        expected.append(votes.index(max(votes)))
    found = nearest_neighbours(features, labels, unknown, 3).tolist()
    assert found == expected
    assert len(set(found)) > 1


def test_fewer_images_than_neighbours_vote_all():
    features, labels = clouds(3, 0)
    assert nearest_neighbours(features, labels, 10 * features, 3).tolist() == [0, 1, 2]


def test_the_regression_is_at_its_minimum():
    features, labels = (part.double() if part.is_floating_point() else part for part in clouds(30, 0, apart=0.6))
    x, y = features.numpy(), labels.numpy()

    def loss(flat):
        weights = flat.reshape(7, 3)
        logits = x @ weights[:-1] + weights[-1]
        logits = logits - logits.max(1, keepdims=True)
        log = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return -log[np.arange(30), y].mean() + 0.01 * (weights[:-1] ** 2).sum() / 2

    best = minimize(loss, np.zeros(21), method="BFGS")
    weights = fit(features, labels, 3, 0.01)
    assert loss(weights.numpy().reshape(-1)) == pytest.approx(best.fun, abs=1e-6)


def test_the_probe_learns_what_is_linear_and_is_not_misled_by_scales():
    features, labels = clouds(60, 0)
    unknown, truth = clouds(30, 1)
    scales = torch.tensor([1e4, 1e-4, 1, 1, 1, 0])
    assert (linear_probe(features * scales, labels, unknown * scales, 3) == truth).float().mean() > 0.9


def test_every_fifth_image_of_a_class_chooses_the_penalty():
    labels = torch.tensor([0, 1, 0, 0, 1, 0, 0, 0, 2])
    assert held_out(labels).nonzero().flatten().tolist() == [6]


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    """Two classes that any feature tells apart: dark and bright pictures; in val one of the three is another's."""
    folder = tmp_path_factory.mktemp("flowers")
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for label, level in (("dark", 20), ("bright", 200)):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = (level + generator.integers(0, 40, (40, 60, 3))).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{number}.png")
    shutil.copy(folder / "val/dark/0.png", folder / "val/bright/mistaken.png")
    (folder / "val/dark/notes.txt").write_text("no image")
    return folder


@pytest.mark.parametrize("place", ["", "student"])
def test_a_student_is_judged_source_by_source(call_tool, trained, flowers, tmp_path, place):
    more = ["--config", trained / "config.yaml"] if place else []
    out = tmp_path / "out"
    code, said, errors = call_tool(
        "classify_features", trained / place, flowers, "--workers", 0, "--output", out, *more
    )
    assert (code, errors) == (0, [])
    found = json.loads((out / "classification.json").read_text())
    assert found["classes"] == ["bright", "dark"]
    assert found["images"] == {"train": 12, "val": 5}
    sources = ["stem", "dinov2", *(["teacher dinov2"] if place else []), "all sources"]
    assert list(found["accuracy"]) == sources
    assert found["accuracy"]["stem"] == {"knn": pytest.approx(80), "linear": pytest.approx(80)}
    assert found["constant"] == pytest.approx(60)  # bright comes first of two that are as common
    assert "best constant" in said
    assert {file.name for file in out.iterdir()} == {"classification.json", "classification.md"}


def test_features_are_mean_tokens_of_the_last_level(trained):
    student = Student.from_pretrained(trained / "student").eval()
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        found, tokens = pooled(student, images), student.stem((images - student.mean) / student.std)
    assert list(found) == ["stem", "dinov2"]
    assert torch.equal(found["stem"], tokens[student.levels[-1] + 1][:, 1:].mean(1)) or torch.allclose(
        found["stem"], tokens[student.levels[-1] + 1][:, 1:].mean(1), atol=1e-6
    )


def test_a_stopped_start_goes_on(call_tool, trained, flowers, tmp_path, monkeypatch):
    from sak.research.classification import evaluate

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "nearest_neighbours", stop)
        code, _, _ = call_tool("classify_features", trained, flowers, "--workers", 0, "--output", tmp_path / "out")
    assert code == 130
    with monkeypatch.context() as patch:  # the features are there
        patch.setattr(evaluate.Features, "_extract_split", stop)
        code, _, errors = call_tool("classify_features", trained, flowers, "--workers", 0, "--output", tmp_path / "out")
    assert (code, errors) == (0, [])


@pytest.mark.parametrize("mistake", ["no train", "no class", "empty class", "another class", "no student", "size"])
def test_mistakes_are_one_line(call_tool, trained, flowers, tmp_path, mistake):
    folder = Path(shutil.copytree(flowers, tmp_path / "classes"))
    student, more, line = trained, [], ""
    if mistake == "no train":
        shutil.rmtree(folder / "train")
        line = f"there is no folder {folder}/train: images to learn from are in train/CLASS/"
    elif mistake == "no class":
        shutil.rmtree(folder / "val")
        (folder / "val").mkdir()
        line = f"{folder}/val is no folder of classes"
    elif mistake == "empty class":
        (folder / "train" / "blue").mkdir()
        line = "blue"
    elif mistake == "another class":
        (folder / "val" / "dark").rename(folder / "val" / "grey")
        line = "has the class 'grey', which"
    elif mistake == "no student":
        student, line = tmp_path / "nowhere", "there is no student at"
    else:
        more, line = ["--image-size", 50, 96], "patch"
    code, _, errors = call_tool("classify_features", student, folder, "--output", tmp_path / "out", *more)
    assert (code, len(errors)) == (2, 1)
    assert line in errors[0]
    assert not (tmp_path / "out").exists()

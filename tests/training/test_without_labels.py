"""A run on images alone: no tasks, no data set, no second stage; at its end a backbone, features and a report."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sak import Student, config
from sak.bundles.build import build_committee
from sak.errors import UserError
from sak.training.train import train

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "tests" / "fixtures" / "pascal_format" / "PASCALContext" / "JPEGImages"
TEXT = """
name: pictures
output: {output}
data: {{tasks: [], image_size: [64, 96], workers: 0}}
student:
  stem: vit_tiny_patch16_384
  stem_options: {{patch_size: 16, embed_dim: 32, depth: 4, num_heads: 2}}
  levels: [0, 1, 2, 3]
teachers:
  dinov2:
    family: dinov2
    model: vit_small_patch14_dinov2
    options: {{img_size: 96, patch_size: 16, embed_dim: 24, depth: 4, num_heads: 2}}
    weights: random
    levels: [0, 1, 2, 3]
stages:
  distill: {{images: {images}, steps: 2, batch_size: 2, optim: {{lr: 1e-3, weight_decay: 0.01, schedule: cosine}}}}
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unlabelled")
    (folder / "pictures.yaml").write_text(TEXT.format(output=folder / "runs", images=PICTURES))
    return folder / "pictures.yaml"


@pytest.fixture(scope="module")
def run(file):
    return train(config.load(file)).path


def crops():
    """The pictures that the report looks at, every other one, cut by hand."""
    shown = []
    for path in sorted(PICTURES.iterdir())[1::2]:
        image = Image.open(path).convert("RGB")
        width, height = image.size
        if width / height > 96 / 64:  # what is too wide loses on both sides
            part = height * 96 / 64
            box = ((width - part) / 2, 0, (width + part) / 2, height)
        else:
            part = width * 64 / 96
            box = (0, (height - part) / 2, width, (height + part) / 2)
        pixels = np.asarray(image.resize((96, 64), Image.Resampling.BICUBIC, box=box))
        shown.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255)
    return torch.stack(shown)


def test_it_ends_with_a_bundle_a_report_and_features(run):
    student = Student.from_pretrained(run / "student").eval()
    assert (list(student.heads), student.sources) == ([], ("stem", "dinov2"))
    teachers = build_committee(config.load(run / "config.yaml"))
    with torch.no_grad():
        ours, theirs = student(crops()).paths["dinov2"], teachers(crops())["dinov2"]
    cosine = torch.nn.functional.cosine_similarity(ours[3].double(), theirs[3].double(), dim=1)
    similarity = json.loads((run / "similarity.json").read_text())
    assert similarity["images"] == 2
    found = similarity["teachers"]["dinov2"]["3"]
    assert found["token"] == pytest.approx(cosine.mean().item(), abs=2e-3)  # pixels are rounded once more
    assert f"| {found['token']:.4f}" in (run / "results.md").read_text()
    assert (run / "similarity.png").stat().st_size > 1000
    assert json.loads((run / "metrics.json").read_text()) == {}

    features = np.load(run / "features.npz")
    assert [Path(name).name for name in features["names"]] == [path.name for path in sorted(PICTURES.iterdir())[1::2]]
    assert {name: features[name].shape for name in ("stem", "dinov2")} == {"stem": (2, 32), "dinov2": (2, 32)}
    with torch.no_grad():
        tokens = student.stem((crops() - student.mean) / student.std)[4][:, 1:]
    assert features["stem"] == pytest.approx(tokens.mean(1).numpy(), abs=5e-2)


def test_the_run_goes_on_and_starts_again_as_any_other(run, file):
    assert train(config.load(file)).finished
    assert config.load(run / "config.yaml").data.tasks == []


def test_without_tasks_nothing_else_has_to_be_said_of_labels(file):
    settings = config.load(file)
    assert (settings.stages.multitask.steps, settings.data.dataset) == (0, "none")
    assert config.load("sak_pascal", ["data.tasks=[]"]).stages.multitask.steps == 0
    assert len((ROOT / "configs" / "distill_folder.yaml").read_text().splitlines()) <= 10
    assert list(config.load("distill_folder").teachers) == ["dinov2", "clip"]


def test_the_images_of_a_data_set_serve_too_and_its_validation_set_is_reported_on(tiny):
    run = train(config.load(tiny, ["data.tasks=[]", "stages.distill.steps=1", "name=bare"]))
    assert json.loads((run.path / "similarity.json").read_text())["images"] == 2
    assert "2 images of the validation set" in run.results.read_text()
    names = [Path(name).stem for name in np.load(run.path / "features.npz")["names"]]
    assert names == ["2008_001002", "2008_001003"]


def test_a_stem_without_paths_and_standardised_features_are_reported_on_too(file):
    more = ["name=other", "student.paths=none", "stages.distill.standardise=phi_s", "stages.distill.steps=1"]
    run = train(config.load(file, more))
    assert list(json.loads((run.path / "similarity.json").read_text())["teachers"]) == ["dinov2"]
    assert "stem" in np.load(run.path / "features.npz")


def test_a_faulty_picture_is_left_out_of_the_report_as_of_the_training(file, tmp_path):
    pictures = Path(shutil.copytree(PICTURES, tmp_path / "pictures"))
    (pictures / "2008_001001.jpg").write_bytes(b"no picture")
    more = [f"stages.distill.images={pictures}", "data.on_error=skip", "data.max_skipped=0.5", "name=faulty"]
    run = train(config.load(file, more))
    assert [Path(name).name for name in np.load(run.path / "features.npz")["names"]] == ["2008_001003.jpg"]
    assert "report\t0\t" in run.skipped.read_text()


def test_a_path_is_taken_out_without_a_report(run, file):
    taken = train(config.load(file, ["name=without", f"from={run}", "student.remove_teacher=dinov2"]))
    assert Student.from_pretrained(taken.student).sources == ("stem",)
    assert not (taken.path / "similarity.json").exists()


def test_images_there_must_be(file):
    with pytest.raises(UserError, match=r"data\.tasks is empty, and stages\.distill\.images is null: set it to a fold"):
        config.load(file, ["stages.distill.images=null"])
    with pytest.raises(UserError, match=r"nowhere is not a folder and no tar"):
        train(config.load(file, ["stages.distill.images=nowhere", "name=nowhere"]))


@pytest.mark.parametrize(
    ("tool", "line"),
    [
        ("evaluate {run}", "has no task heads (it was distilled only)"),
        ("inspect_router {run}", "has no task heads (it was distilled only)"),
        ("probe_teachers {file}", "data.tasks is empty, but this needs labels: name tasks"),
        ("ablate_teachers {file} --subsets all", "so that there would be no metrics to compare"),
    ],
)
def test_what_needs_labels_says_so(call_tool, run, file, tool, line):
    code, _, errors = call_tool(*tool.format(run=run, file=file).split())
    assert (code, len(errors)) == (2, 1)
    assert line in errors[0]


def test_what_needs_none_works_on_the_images(call_tool, run, file, tmp_path):
    code, out, errors = call_tool("inspect_fidelity", run, "--output", tmp_path / "fidelity")
    assert (code, errors) == (0, [])
    fidelity = json.loads((tmp_path / "fidelity" / "fidelity.json").read_text())
    assert fidelity["teachers"] == json.loads((run / "similarity.json").read_text())["teachers"]
    code, out, errors = call_tool("compare_features", file, "--student", run, f"output={tmp_path}")
    assert (code, errors) == (0, [])
    assert json.loads((tmp_path / "pictures-similarity" / "similarity.json").read_text())["images"] == {
        "train": 2,
        "val": 2,
    }
    code, out, errors = call_tool("doctor", file)
    assert (code, errors) == (0, [])
    assert "4 unlabelled images" in out
    assert "stage distill: 2 steps, 4 images" in out

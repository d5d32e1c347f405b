"""A run knows its own work again: by what it is, not by how it is written or where it lies."""

import os
import shutil

import pytest
import torch

from sak import config
from sak.config.schema import STAGES
from sak.errors import UserError
from sak.training import checkpoint, train
from sak.training.checkpoint import Progress
from sak.training.run_directory import RunDirectory


@pytest.fixture
def begun(tiny, archive, tmp_path, monkeypatch, train_until_killed):
    """Overrides of a run that was killed after its first step, and its directory; run from the folder of both."""
    monkeypatch.chdir(tmp_path)
    own = ["data.tasks=[semseg]", "stages.distill.checkpoint_every=1", "output=runs", "data.root=archive"]
    own += [f"stages.{stage}.batch_size=1" for stage in STAGES]
    own += ["stages.multitask.steps=1", "stages.multitask.evaluate_every=null"]
    train_until_killed(config.load(tiny, own), "distill")
    return own, tmp_path / "runs" / "tiny"


def drop_line(archive, split):
    file = archive / "ImageSets" / "Context" / f"{split}.txt"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))


@pytest.mark.parametrize(
    "other",
    [
        ["output=runs/"],
        ["output=./runs"],
        ["data.root=archive/"],
        ["data.root=../{here}/archive"],
        ["output={absolute}/runs", "data.root={absolute}/archive"],
    ],
    ids=" ".join,
)
def test_the_same_place_written_otherwise_is_the_same_experiment(tiny, begun, tmp_path, other):
    own, run = begun
    other = [each.format(here=tmp_path.name, absolute=tmp_path) for each in other]
    assert train.train(config.load(tiny, own + other)).path.samefile(run)
    assert RunDirectory(config.load(tiny, own)).finished


def test_so_is_all_of_it_after_a_move(tiny, begun, tmp_path):
    """Of the data, of the run, and of both: a mount that has another name today."""
    own, _ = begun
    (tmp_path / "mount").mkdir()
    os.rename(tmp_path / "archive", tmp_path / "mount" / "data")
    os.rename(tmp_path / "runs", tmp_path / "mount" / "results")
    moved = config.load(tiny, [*own, "data.root=mount/data", "output=mount/results"])
    assert train.train(moved).path == tmp_path / "mount/results/tiny" or RunDirectory(moved).finished
    assert config.load(tmp_path / "mount/results/tiny/config.yaml").data.root == "mount/data"


def test_so_is_one_under_another_name(tiny, begun, tmp_path):
    own, run = begun
    shutil.copytree(run, run.with_name("copy"))
    assert train.train(config.load(tiny, [*own, "name=copy"])).finished


@pytest.mark.parametrize(("split", "what"), [("train", "images of distill"), ("val", "images of val")])
def test_images_that_have_gone_since_it_began_are_noticed(tiny, begun, archive, split, what):
    own, run = begun
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    drop_line(archive, split)
    with pytest.raises(UserError, match=rf"began with other {what} \(\d+ images, .*\) than there are now \(\d+ images"):
        train.train(config.load(tiny, own))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_so_are_images_that_have_changed_places(tiny, begun, archive):
    own, _ = begun
    file = archive / "ImageSets" / "Context" / "train.txt"
    file.write_text("\n".join(reversed(file.read_text().split())))
    with pytest.raises(UserError, match="began with other images of distill"):
        train.train(config.load(tiny, own))


def test_so_are_another_teacher_s_weights_under_the_same_name(tiny, tmp_path, monkeypatch, train_until_killed, begun):
    from safetensors.torch import save_file

    from sak.bundles.build import build_committee

    own, _ = begun
    teacher = build_committee(config.load(tiny, own))["dinov2"].backbone.state_dict()
    save_file(teacher, tmp_path / "teacher.safetensors")
    own = [*own, "name=taught", "teachers.dinov2.weights=teacher.safetensors"]
    train_until_killed(config.load(tiny, own), "distill")
    shutil.move(tmp_path / "teacher.safetensors", tmp_path / "moved.safetensors")
    moved = [*own, "teachers.dinov2.weights=moved.safetensors"]
    save_file({key: value + 1 for key, value in teacher.items()}, tmp_path / "teacher.safetensors")
    with pytest.raises(UserError, match="began with other weights of the teacher dinov2"):
        train.train(config.load(tiny, own))
    with pytest.raises(UserError, match=r"different experiment: teachers\.dinov2\.weights is"):
        train.train(config.load(tiny, [*own, "teachers.dinov2.weights=random"]))
    assert train.train(config.load(tiny, moved)).finished


def test_what_is_no_place_still_counts(tiny, begun):
    own, _ = begun
    for override, key in {
        "data.tasks=[normals]": "data.tasks",
        "seed=1": "seed",
        "stages.distill.images=archive/JPEGImages": "stages.distill.images",
        "teachers.dinov2.weights=x.safetensors": "teachers.dinov2.weights",
    }.items():
        with pytest.raises(UserError, match=f"different experiment: {key} is"):
            train.train(config.load(tiny, [*own, override]))


def test_a_run_that_began_before_it_was_noted_goes_on(tiny, begun, archive):
    own, run = begun
    (run / "inputs.json").unlink()
    text = (run / "config.yaml").read_text()
    assert "precision: fp32" in text
    (run / "config.yaml").write_text(text.replace("precision: fp32", "precision: 'no'"))
    drop_line(archive, "train")  # nobody can know
    assert train.train(config.load(tiny, [*own, "precision=no"])).finished
    assert (run / "inputs.json").is_file()


def test_checkpoints_of_something_else_are_set_aside(begun, recwarn):
    _, run = begun
    good = checkpoint.newest(run / "checkpoints")
    state = torch.load(good, weights_only=True)
    strange = {
        "multitask-0000007.pt": {**state, "stage": "polish", "step": 7},
        "distill-0000009.pt": state,  # that of step 1 under another name
        "distill-0000008.pt": {**state, "step": "8"},
        "distill-0000007.pt": {**state, "step": 7, "student": [1]},
        "distill-0000006.pt": [1, 2],
    }
    for name, content in strange.items():
        torch.save(content, run / "checkpoints" / name)
    assert checkpoint.resume(run / "checkpoints")[0] == good
    assert {path.name for path in (run / "checkpoints").glob("*.corrupt")} == {f"{name}.corrupt" for name in strange}
    assert len([warning for warning in recwarn if "checkpoint" in str(warning.message)]) == len(strange)


def test_a_checkpoint_too_many_that_a_kill_left_is_removed(tiny, begun):
    """A kill after the stage's last one was written and before the oldest was removed; nothing is saved there again."""
    own, run = begun
    state = torch.load(checkpoint.newest(run / "checkpoints"), weights_only=True)
    for step in (2, 3):
        torch.save({**state, "step": step}, checkpoint.path_of(run / "checkpoints", Progress("distill", step)))
    train.train(config.load(tiny, own))
    assert sorted(path.name for path in (run / "checkpoints").glob("distill*")) == [
        "distill-0000002.pt",
        "distill-0000003.pt",
    ]

"""Stages apart: a run of the first stage alone, and runs that start from its student."""

import json

import pytest
import torch
from omegaconf import OmegaConf

from sak import Student, config
from sak.bundles.build import build_student, build_tasks, load_distilled, start_from_weights
from sak.errors import UserError
from sak.training import checkpoint
from sak.training.train import train

SIZES = ["stages.distill.image_size=[64,48]"]  # beside 96x96 of the second stage
FEW = [
    "data.tasks=[semseg]",
    "stages.distill.steps=2",
    "stages.multitask.steps=2",
    "stages.multitask.evaluate_every=null",
]


def last_weights(run):
    return torch.load(checkpoint.newest(run.checkpoints), weights_only=True)["student"]


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def load(tiny):
    return lambda *overrides: config.load(tiny, [*SIZES, *FEW, *overrides])


@pytest.fixture
def distilled(load):
    return train(load("name=distilled", "stages.multitask.steps=0"))


def test_the_first_stage_alone_leaves_a_student_to_go_on_from(distilled):
    student = Student.from_pretrained(distilled.student)
    assert equal(dict(student.state_dict()), last_weights(distilled))
    assert any("aligners" in key for key in student.state_dict())
    assert student.stem.vit.pos_embed.shape[1] == 1 + 4 * 3
    assert (len(student.heads), len(student.routers)) == (0, 0)
    assert distilled.finished
    assert json.loads(distilled.metrics.read_text()) == {}
    assert f"stages.distill.steps=0 student.weights={distilled.path}" in distilled.results.read_text()


def test_the_first_stage_alone_needs_no_labelled_data(load, archive):
    settings = load("stages.multitask.steps=0", f"stages.distill.images={archive}/JPEGImages", "data.root=/nowhere")
    assert train(settings).finished


def test_two_runs_of_a_stage_each_are_one_run_of_both(load, distilled, capsys):
    whole = train(load("name=whole"))
    assert last_weights(whole)["stem.vit.pos_embed"].shape[1] == 1 + 6 * 6
    capsys.readouterr()
    second = train(load("name=second", "stages.distill.steps=0", f"student.weights={distilled.path}"))
    assert equal(last_weights(second), last_weights(whole))
    assert second.metrics.read_text() == whole.metrics.read_text()
    line = f"the student starts with stem, paths from {distilled.path}; routers, heads from random weights"
    assert line in capsys.readouterr().out


@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_the_image_size_of_its_stage(load, train_until_killed):
    whole = train(load("name=whole"))
    for stage in ("distill", "multitask"):
        settings = load(
            f"name=killed_in_{stage}", *(f"stages.{s}.checkpoint_every=1" for s in ("distill", "multitask"))
        )
        train_until_killed(settings, stage)
        assert equal(last_weights(train(settings)), last_weights(whole))


def test_nothing_to_train(load):
    with pytest.raises(UserError, match="both 0: there is nothing to train"):
        train(load("stages.distill.steps=0", "stages.multitask.steps=0"))


def student(settings, teachers=None):
    return build_student(settings, build_tasks(settings.data), {"dinov2": [24] * 4} if teachers is None else teachers)


def test_routers_and_heads_stay_new_and_all_else_is_loaded(load, distilled):
    settings = load("stages.distill.steps=0", f"student.weights={distilled.student}", "stages.distill.image_size=null")
    ours = student(settings)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    said = start_from_weights(ours, settings)
    assert said == f"stem, paths from {distilled.student}; routers, heads from random weights"
    theirs = last_weights(distilled)
    for key, value in ours.state_dict().items():
        if key.startswith(("routers.", "heads.")):
            assert torch.equal(value, before[key]), key
        elif key == "stem.vit.pos_embed":
            assert value.shape[1] == 1 + 6 * 6
            assert torch.equal(value[:, 0], theirs[key][:, 0])
        else:
            assert torch.equal(value, theirs[key]), key


DIFFERENT = [  # (changes of the config, teachers, what is said)
    ([], {"clip": [24] * 4}, r"has the teachers \['dinov2'\], but this student \['clip'\]"),
    ([], {"dinov2": [16] * 4}, r"paths.dinov2.aligners.0.bias of shape \(24,\), but this student \(16,\)"),
    (["student.levels=[0,1,2]"], {"dinov2": [24] * 3}, r"has the levels \[0, 1, 2, 3\], but this .* \[0, 1, 2\]"),
    (["student.stem_options.num_heads=4"], None, "has attention heads: 2, but this student 4"),
    (["student.stem_options.patch_size=8"], None, "has the patch size 16, but this student 8"),
    (["student.stem_options.depth=5"], None, r"stem.vit.blocks.4.\S+ of shape None, but this student"),
    (["student.path_norm=false"], None, "has student.path_norm: True, but this student False"),
    (["student.paths=none"], None, r"paths.dinov2.adapters.0.down.bias of shape \(8,\), but this student None"),
    (["student.adapter_ratio=2"], None, r"adapters.0.down.bias of shape \(8,\), but this student \(16,\)"),
]


def test_a_student_that_differs_is_refused(load, distilled):
    for changes, teachers, message in DIFFERENT:
        ours = student(load("stages.distill.steps=0", *changes), teachers)
        with pytest.raises(UserError, match=message):
            load_distilled(ours, str(distilled.path))


def test_a_bundle_without_aligners(load, distilled):
    bundle = Student.from_pretrained(distilled.student)
    bundle.drop_aligners()
    place = distilled.path / "without_aligners"
    bundle.save_pretrained(place)
    settings = load("stages.distill.steps=0")
    ours = student(settings)
    drawn = {key: value.clone() for key, value in ours.paths.state_dict().items() if ".aligners." in key}
    assert load_distilled(ours, str(place)) == ["dinov2"]  # which are drawn anew, and all else is loaded
    assert load_distilled(student(settings), str(distilled.path)) == []
    for key, value in ours.paths.state_dict().items():
        assert torch.equal(value, drawn[key] if key in drawn else bundle.paths.state_dict()[key])
    without = load("name=b", "stages.distill.steps=0", "student.aligner=false", "stages.multitask.alpha=0")
    for source in (place, distilled.path):
        start_from_weights(student(without), OmegaConf.merge(without, {"student": {"weights": str(source)}}))


def test_distillation_needs_aligners(load):
    for changes, width in (([], 24), (["student.paths=none"], 32)):
        with pytest.raises(UserError, match="aligner is false, but dinov2 can only be distilled through aligners"):
            student(load("student.aligner=false", *changes), {"dinov2": [width] * 4})
    student(load("student.aligner=false"), {"dinov2": [32] * 4})
    student(load("student.aligner=false", "stages.distill.steps=0", "stages.multitask.alpha=0"))


def test_places_without_a_student(load, tmp_path):
    with pytest.raises(UserError, match=r"there is no student at .*: give a finished run"):
        load_distilled(student(load()), str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"is no bundle: it has no model\.safetensors"):
        load_distilled(student(load()), str(tmp_path))

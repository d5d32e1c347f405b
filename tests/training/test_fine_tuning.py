"""``from=RUN`` of a finished run: its stem and paths, new heads, and no teacher."""

import json

import pytest
import torch

from sak import Student, config
from sak.errors import UserError
from sak.preflight.plan import plan
from sak.training.run_directory import RunDirectory
from sak.training.train import Experiment, train

TASKS = "data.tasks=[semseg,edge]"


@pytest.fixture
def load(tiny, trained):
    return lambda *overrides: config.load(tiny, ["name=tuned", f"from={trained}", *overrides])


def no_teachers(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a teacher is asked for")

    monkeypatch.setattr("sak.bundles.build.Committee", refuse)


def test_one_flag_trains_a_finished_student_on(load, trained, monkeypatch, capsys):
    no_teachers(monkeypatch)
    settings = load(TASKS)
    run = train(settings)
    said = capsys.readouterr().out
    assert f"the student starts with stem, paths from {trained}; routers, heads from random weights" in said
    assert set(json.loads(run.metrics.read_text())) == {"semseg", "edge"}
    student = Student.from_pretrained(run.student)
    assert list(student.channels) == ["semseg", "edge"]
    assert student.sources == ("stem", "dinov2")
    assert not list(run.checkpoints.glob("distill*"))
    assert train(load(TASKS)).finished  # the same command again is the same experiment


def test_it_starts_from_the_weights_of_the_run(load, trained):
    settings = load("seed=3")
    student = Experiment(settings, RunDirectory(settings)).student
    before = Student.from_pretrained(trained / "student")
    for part in ("stem", "paths"):
        theirs = getattr(before, part).state_dict()
        ours = getattr(student, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    heads = before.heads.state_dict()
    assert any(not torch.equal(value, heads[key]) for key, value in student.heads.state_dict().items())
    assert student.train().stem.vit.pos_embed.requires_grad


def test_teachers_need_not_be_named(load, trained, tiny):
    settings = load("teachers.dinov2=null", TASKS)
    student = Experiment(settings, RunDirectory(settings)).student
    assert list(student.paths) == ["dinov2"]
    assert plan(settings, {"multitask": 2}).parameters["paths"] > 0
    other = load("teachers.other={family: dinov2, model: x, levels: [0, 1, 2, 3]}")
    with pytest.raises(UserError, match=r"has the teachers \['dinov2'\], but the config \['dinov2', 'other'\]"):
        Experiment(other, RunDirectory(other))


def test_distillation_that_is_asked_for_learns_new_aligners(load, capsys):
    settings = load("stages.multitask.alpha=0.5", "stages.multitask.steps=1", TASKS)
    assert settings.student.aligner is None
    train(settings)
    assert "routers, heads, the aligners of dinov2 from random weights" in capsys.readouterr().out


def test_what_follows_from_the_flag(load, tiny, trained, tmp_path):
    tuned = load()
    assert (tuned.stages.distill.steps, tuned.stages.multitask.alpha, tuned.student.aligner) == (0, 0, False)
    assert load("stages.distill.steps=2").stages.distill.steps == 2
    assert load("stages.multitask.alpha=2").stages.multitask.alpha == 2
    # What a run wrote down is read as it stands, and a student that has its aligners goes on being distilled.
    config.save(load("stages.multitask.alpha=2"), tmp_path / "run.yaml")
    assert config.load(tmp_path / "run.yaml").stages.multitask.alpha == 2
    distilled = train(config.load(tiny, ["name=distilled", "stages.multitask.steps=0"])).path
    assert config.load(tiny, [f"from={distilled}"]).stages.multitask.alpha == 1
    assert config.load(tiny, [f"from={trained}", "student.remove_teacher=dinov2"]).stages.multitask.alpha == 1

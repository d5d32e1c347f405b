"""What works for a student works for a backbone with heads: training, resuming, caches, evaluation, plans."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sak import config
from sak.config.schema import FROZEN, METHODS
from sak.errors import UserError
from sak.preflight.doctor import diagnose
from sak.preflight.fill_cache import fill
from sak.preflight.plan import plan
from sak.training import train
from sak.training.run_directory import RunDirectory
from sak.training.stage import StageTraining
from teachers.cache import TeacherCache
from teachers.dinov2 import DINOv2

SETTINGS = [
    "stages.distill.steps=0",
    "stages.multitask.steps=3",
    "stages.multitask.checkpoint_every=1",
    "stages.multitask.evaluate_every=null",
    "data.tasks=[semseg]",
    "adaptation.backbone=dinov2",
    "adaptation.rank=4",
]


real_features = DINOv2.features


@pytest.fixture
def settings(tiny):
    return lambda method, *more: config.load(tiny, [*SETTINGS, f"stages.multitask.method={method}", *more])


def weights(run):
    return load_file(run.student / "model.safetensors")


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


QUICK = ("losa", "lora", "full")  # one that is frozen, one inside of the backbone, all of it


@pytest.mark.parametrize("method", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in METHODS])
def test_a_killed_run_ends_as_one_that_was_not(settings, method, train_until_killed):
    whole = train.train(settings(method))
    train_until_killed(settings(method, "name=killed"), "multitask")
    killed = train.train(settings(method, "name=killed"))
    assert same(weights(whole), weights(killed))
    assert whole.metrics.read_text() == killed.metrics.read_text()
    kept = torch.load(whole.checkpoints / "multitask-0000003.pt", weights_only=True)
    assert kept["student"].keys() == weights(whole).keys()
    frozen = method in FROZEN
    assert any(name.startswith("stem.backbone.") for name in kept["student"]) != frozen
    changed = torch.load(whole.checkpoints / "multitask-0000002.pt", weights_only=True)["student"]
    idle = [n for n, now in kept["student"].items() if n.startswith("stem.") and torch.equal(now, changed[n])]
    assert idle == [] or method == "full"  # which keeps what no level reads too


def test_resuming_with_another_backbone_is_refused(settings, train_until_killed):
    train_until_killed(settings("losa"), "multitask")
    with pytest.raises(
        UserError, match=r"different experiment: teachers.dinov2.options.num_heads is 2 there and 3 here"
    ):
        train.train(settings("losa", "teachers.dinov2.options.num_heads=3"))


CACHED = ["cache.views=2", "cache.stages=[multitask]", "stages.multitask.steps=4"]


@pytest.mark.parametrize("more", [[], ["teachers.dinov2.scales=[1,2]"], ["adaptation.taps=[0,1,2,3]"]])
def test_stored_features_stand_for_the_backbone(settings, tmp_path, monkeypatch, more):
    """An epoch of them is one of the side network alone: it is not asked again."""
    where = [*CACHED, *more, "teachers.dinov2.levels=[1,3]", f"cache.path={tmp_path / 'cache'}"]
    real, totals = StageTraining._step, {"losa": [], "plain": []}

    def noting(self, *arguments):
        terms = real(self, *arguments)
        totals[self.config.name].append(float(terms["total"]))
        return terms

    monkeypatch.setattr(StageTraining, "_step", noting)
    train.train(settings("losa", *where, "cache.path=null", "name=plain"))
    fill(settings("losa", *where))
    monkeypatch.setattr(TeacherCache, "write", None)
    asked = []
    monkeypatch.setattr(
        DINOv2, "features", lambda self, inputs: asked.append(len(inputs)) or real_features(self, inputs)
    )
    train.train(settings("losa", *where, "name=losa"))
    assert totals["losa"] == pytest.approx(totals["plain"], rel=2e-3)  # of float16
    assert totals["losa"] != totals["plain"]
    tiles = 5 if "scales" in str(more) else 1
    assert sum(asked) == 2 * tiles  # images of the evaluation


def test_the_taps_of_losa_are_blocks_and_the_heads_read_the_levels(settings):
    run = train.train(settings("losa", "teachers.dinov2.levels=[1,3]", "adaptation.taps=[0,1,2,3]"))
    kept = weights(run)
    assert sum(name.endswith("norm.weight") and ".mixers." in name for name in kept) == 4
    assert sum("projections" in name and name.endswith("weight") for name in kept) == 2


@pytest.mark.parametrize("method", ["losa", "lora"])
def test_the_tools_take_the_run(settings, method, call_tool, tmp_path):
    run = train.train(settings(method))
    code, _, errors = call_tool("evaluate", run.path)
    assert (code, errors) == (0, [])
    again = json.loads((run.path / "evaluation" / "metrics.json").read_text())
    assert again == json.loads(run.metrics.read_text())
    picture = next(Path(config.load(run.config_file).data.root, "JPEGImages").glob("*.jpg"))
    code, _, errors = call_tool("predict", run.path, picture, "--out", tmp_path / "out")
    assert (code, errors) == (0, [])
    assert method in (run.student / "README.md").read_text()


@pytest.mark.parametrize("method", METHODS)
def test_a_plan_counts_what_learns(settings, method):
    found = plan(settings(method), {"distill": 2, "multitask": 2})
    run = train.train(settings(method, "stages.multitask.steps=1"))
    state = torch.load(run.checkpoints / "multitask-0000001.pt", weights_only=True)
    moments = sum(each["exp_avg"].numel() for each in state["optimizer"]["state"].values())
    stage = found.stages["multitask"]
    assert stage.trained == moments
    kept = sum(values.numel() * values.element_size() for values in state["student"].values())
    assert stage.checkpoint == kept + 8 * moments
    assert set(found.parameters) >= {"backbone", "heads"}


def test_a_frozen_backbone_takes_less_memory_than_a_tuned_one(settings):
    peaks = {m: plan(settings(m), {"distill": 2, "multitask": 2}).stages["multitask"].peak for m in METHODS}
    assert peaks["linear"] < peaks["losa"] < peaks["lora"] < peaks["full"]


def test_the_doctor_names_the_backbone(settings):
    survey, found = diagnose(settings("losa"), progress=False)
    assert found is not None
    assert [problem for problem in survey.problems if problem.kind in ("config", "teacher")] == []
    assert ("backbone", "dinov2, losa") in survey.facts


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["stages.multitask.method=prefix"],
            "stages.multitask.method is 'prefix', but must be one of null, linear, losa",
        ),
        (["adaptation.backbone=sam"], r"adaptation.backbone is 'sam', but must be one of the teachers \(dinov2\)"),
        (["adaptation.backbone=null"], "adaptation.backbone is None, but must be one of the teachers"),
        (["stages.distill.steps=2"], "stages.distill.steps is 2, but must be 0, as stages.multitask.method is losa"),
        (["student.weights=x"], "student.weights is 'x', but must be null"),
        (["stages.multitask.balance=0.1"], "stages.multitask.balance is 0.1, but must be 0"),
        (["stages.multitask.task_balance=gradnorm"], "task_balance is 'gradnorm', but must be another"),
        (["distributed=fsdp"], "distributed is 'fsdp', but must be ddp"),
        (["adaptation.taps=[0,1]"], r"adaptation.taps is \[0, 1\], but must be blocks with the backbone's levels"),
        (["stages.multitask.method=lora", "adaptation.taps=[0,1,2,3]"], "adaptation.taps .* must be null"),
        (["adaptation.rank=0"], "adaptation.rank is 0, but must be positive"),
        (["adaptation.taps=[3,1]"], "adaptation.taps is .*, each larger than the one before"),
    ],
)
def test_wrong_values(settings, overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        settings("losa", *overrides)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["adaptation.rank=25"], "method=losa: rank is 25, but must be from 1 to 24"),
        (["adaptation.taps=[0,1,2,3,4]"], r"levels \[0, 1, 2, 3, 4\] must be increasing numbers from 0 to 3"),
        (["stages.multitask.method=full", "teachers.dinov2.scales=[1,2]"], "full goes through a backbone at one scale"),
    ],
)
def test_what_only_building_it_shows(settings, overrides, sentence):
    experiment = settings("losa", *overrides)
    with pytest.raises(UserError, match=sentence):
        train.train(experiment)
    assert not RunDirectory(experiment).path.exists()

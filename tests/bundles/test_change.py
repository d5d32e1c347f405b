"""Runs that add, update or remove a teacher of a trained student."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from omegaconf import OmegaConf

from sak import Student, config
from sak.bundles import path_files
from sak.bundles.build import build_committee, build_tasks
from sak.bundles.change import changed_student, trained_student
from sak.config.schema import STAGES
from sak.errors import UserError
from sak.evaluation.distributed import RunningStatistics
from sak.preflight.plan import plan
from sak.research.similarity.aligners import as_distilled
from sak.research.similarity.fidelity import compare_paths
from sak.student.growth import EnteringGate
from sak.training import checkpoint, objectives
from sak.training.train import train

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "pascal_format" / "PASCALContext"
FEW = [
    "data.tasks=[semseg]",
    "stages.distill.steps=2",
    "stages.distill.image_size=[64,48]",  # beside 96x96 of the second stage
    "stages.multitask.steps=3",
    "stages.multitask.evaluate_every=null",
]
SECOND = """
teachers:
  vit:
    family: dinov2
    model: vit_small_patch14_dinov2
    options: {img_size: 96, patch_size: 16, embed_dim: 16, depth: 4, num_heads: 2}
    weights: random
    levels: [0, 1, 2, 3]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("change")


@pytest.fixture(scope="module")
def load(place, tiny_text):
    file = place / "two.yaml"
    (place / "tiny.yaml").write_text(tiny_text.format(output=place / "runs", root=ARCHIVE))
    file.write_text(f"extends: tiny.yaml\n{SECOND}")
    return lambda *overrides: config.load(file, [*FEW, *overrides])


@pytest.fixture(scope="module")
def old(load):
    """A finished run of one teacher; its bundle has no aligners."""
    return train(load("name=old", "teachers.vit=null"))


@pytest.fixture(scope="module")
def add(load, old):
    """The config of the run that adds the other teacher."""
    return lambda *overrides: load("name=added", "student.add_teacher=vit", f"from={old.path}", *overrides)


@pytest.fixture(scope="module")
def added(add):
    return train(add())


@pytest.fixture(scope="module")
def distilled(add):
    """The other teacher added by distillation alone."""
    return train(add("name=distilled", "stages.multitask.steps=0"))


def weights(run, part=""):
    content = safetensors.torch.load_file(run.student / "model.safetensors")
    return {key: value for key, value in content.items() if key.startswith(part)}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def predict(run):
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return Student.from_pretrained(run.student).eval()(images)


def test_adding_trains_the_new_path_routers_and_heads_alone(old, added):
    before, after = weights(old), weights(added)
    student = Student.from_pretrained(added.student)
    assert student.sources == ("stem", "dinov2", "vit")
    for part in ("stem.", "paths.dinov2."):
        assert same(weights(old, part), weights(added, part))
    assert after.keys() - before.keys() == weights(added, "paths.vit.").keys()
    assert not same(weights(old, "heads."), weights(added, "heads."))
    assert not torch.equal(before["heads.semseg.fuse.1.running_mean"], after["heads.semseg.fuse.1.running_mean"])
    assert all(not torch.equal(after[f"routers.semseg.{n}.gate.0.weight"], before[f"routers.semseg.{n}.gate.0.weight"])
               for n in range(4))  # fmt: skip
    entered = [level[:, 2].max().item() for level in predict(added).routing["semseg"]]
    assert max(entered) > 1e-4  # of at most three steps of 1e-3, from 1e-17
    saved = OmegaConf.load(added.config_file)
    assert (saved.student.weights, saved.student.add_teacher) == (str(old.path), "vit")
    assert f"what is at {old.path}, with a path for vit, at random" in added.results.read_text()


def test_distillation_alone_leaves_all_that_is_predicted(old, distilled):
    before, after = predict(old), predict(distilled)
    torch.testing.assert_close(after.predictions["semseg"], before.predictions["semseg"], rtol=0, atol=1e-6)
    for one, other in zip(before.routing["semseg"], after.routing["semseg"], strict=True):
        torch.testing.assert_close(other[:, :2], one, rtol=0, atol=1e-6)
    assert distilled.metrics.read_text() == old.metrics.read_text()
    assert [path.shape[1] for path in after.paths["vit"]] == [16] * 4  # whose aligners are kept
    assert [path.shape[1] for path in after.paths["dinov2"]] == [32] * 4


def test_removing_what_was_added_gives_back_the_student_bit_for_bit(load, old, distilled):
    removed = train(load("name=removed", "student.remove_teacher=vit", f"from={distilled.path}"))
    for file in ("config.json", "model.safetensors"):
        assert (removed.student / file).read_bytes() == (old.student / file).read_bytes()
    assert removed.metrics.read_text() == old.metrics.read_text()


def test_what_was_only_distilled_enters_later(load, distilled):
    overrides = ["stages.distill.steps=0", "student.trained_beside=[routers]", f"from={distilled.path}"]
    run = train(load("name=entered", "student.update_teacher=vit", *overrides))
    for part in ("stem.", "paths.dinov2.", "heads."):
        assert same(weights(run, part), weights(distilled, part))
    assert max(level[:, 2].max().item() for level in predict(distilled).routing["semseg"]) < 1e-12
    assert max(level[:, 2].max().item() for level in predict(run).routing["semseg"]) > 1e-4


def test_updating_trains_one_path_alone_from_where_it_is(load, added):
    settings = load("name=updated", "student.update_teacher=dinov2", f"from={added.path}", "teachers.vit=null")
    source = trained_student(settings)
    dims = build_committee(settings).dims
    start = changed_student(settings, source, build_tasks(settings.data), dims)
    theirs = dict(source.named_parameters())
    new = {name for name, value in start.named_parameters() if name not in theirs}
    assert new == {f"paths.dinov2.aligners.{n}.{what}" for n in range(4) for what in ("weight", "bias")}
    run = train(settings)
    for part in ("stem.", "paths.vit.", "heads.", "routers."):
        assert same(weights(run, part), weights(added, part))
    changed = weights(run, "paths.dinov2.")
    assert all(not torch.equal(changed[key], value) for key, value in weights(added, "paths.dinov2.").items()
               if "adapters" in key)  # fmt: skip


def test_removing_can_be_followed_by_training(load, added):
    overrides = ["student.trained_beside=[routers,heads]", f"from={added.path}"]
    run = train(load("name=retrained", "student.remove_teacher=dinov2", *overrides))
    assert Student.from_pretrained(run.student).sources == ("stem", "vit")
    for part in ("stem.", "paths."):
        assert same(weights(run, part), {k: v for k, v in weights(added, part).items() if ".dinov2." not in k})
    assert not same(weights(run, "heads."), weights(added, "heads."))


def test_the_path_that_a_change_distilled_can_be_compared(add, added, distilled, tmp_path):
    """Through its aligners, which a run with a second stage has in its checkpoint, beside entrances that are open."""
    for run in (added, distilled):
        result = compare_paths(str(run.path), tmp_path / run.path.name, limit=1)
        assert list(result["teachers"]) == ["vit"]
    student, learned, dims = as_distilled(str(added.path), config.load(added.config_file))
    assert dims == {"vit": [16] * 4}
    state = checkpoint.load(checkpoint.newest(added.checkpoints))["student"]
    for part in ("paths.vit.aligners.2.weight", "paths.dinov2.adapters.0.down.weight"):
        assert torch.equal(student.state_dict()[part], state[part])
    assert same({key: value for key, value in student.state_dict().items() if "aligners" not in key}, weights(added))
    torch.manual_seed(1)
    teacher = build_committee(add(), ["vit"])["vit"]  # untrained: drawn as in training
    images = torch.rand(1, 3, 96, 96)
    torch.testing.assert_close(learned(images)["vit"], teacher(images))


def test_a_change_that_distilled_nothing_cannot(load, added, tmp_path):
    file = tmp_path / "removed.yaml"
    config.save(load("name=removed", "student.remove_teacher=vit", f"from={added.path}"), file)
    with pytest.raises(UserError, match="removed a teacher and distilled none: give the run that it started from"):
        compare_paths(str(added.path), tmp_path, str(file))


def test_several_processes_leave_the_statistics_of_heads_that_rest(added):
    student = Student.from_pretrained(added.student)
    student.freeze(["heads"])
    norm = student.train().heads["semseg"].fuse[1]
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    with RunningStatistics(student, 2, 0).of_all():
        student(torch.rand(2, 3, 96, 96))
    assert same(before, norm.state_dict())


def test_the_plan_is_of_what_learns(load, add, added):
    for settings in (add(), load("student.update_teacher=vit", f"from={added.path}")):
        source = trained_student(settings)
        student = changed_student(settings, source, build_tasks(settings.data), {"vit": [16] * 4})
        planned = plan(settings, {"distill": 4, "multitask": 4})
        for stage in STAGES:
            objectives.choose_trained_weights(student, stage, distils=True)
            entrances = [p for name, p in student.named_parameters() if name.endswith("entrance") and p.requires_grad]
            learning = sum(p.numel() for p in student.parameters() if p.requires_grad)
            assert planned.stages[stage].trained == learning - len(entrances)


@pytest.mark.parametrize("stage", ["distill", "multitask"])
def test_an_interrupted_change_ends_as_one_that_is_not(add, added, train_until_killed, stage):
    settings = add(f"name=killed_in_{stage}", *(f"stages.{s}.checkpoint_every=1" for s in STAGES))
    train_until_killed(settings, stage)
    run = train(settings)
    assert same(weights(run), weights(added))
    assert run.metrics.read_text() == added.metrics.read_text()


def test_a_path_file_is_where_a_new_path_starts(add, added, place):
    path_files.save_path(added.path, "vit", place / "vit.safetensors")
    settings = add(f"student.path={place / 'vit.safetensors'}")
    student = changed_student(settings, trained_student(settings), build_tasks(settings.data), {"vit": [16] * 4})
    own = {key: value for key, value in student.state_dict().items() if key.startswith("paths.vit.")}
    assert same({key: value for key, value in own.items() if "aligners" not in key}, weights(added, "paths.vit."))
    assert all(isinstance(level.gate[-1], EnteringGate) for level in student.routers["semseg"])
    assert student.aligners == {"dinov2": False, "vit": None}


def test_in_words(load, old, added, place):
    unfinished = place / "unfinished"
    shutil.copytree(old.path, unfinished)
    (unfinished / "metrics.json").unlink()
    summing = place / "summing"
    student = json.loads((old.student / "config.json").read_text())
    summing.mkdir()
    tensors = {key: value for key, value in weights(old).items() if not key.startswith("routers.")}
    safetensors.torch.save_file(tensors, summing / "model.safetensors")
    (summing / "config.json").write_text(json.dumps({**student, "router": "sum"}))
    here, there = f"from={old.path}", f"from={added.path}"
    for overrides, message in (
        (["student.add_teacher=vit"], "student.add_teacher needs the trained student that it changes: from=RUN"),
        (["student.add_teacher=sam", here], r"is 'sam', which is not among the teachers \(dinov2, vit\)"),
        (["student.add_teacher=vit", "student.remove_teacher=vit", here], "are both set"),
        (["student.trained_beside=[heads]"], "trained_beside is set, but no teacher is added"),
        (["student.add_teacher=vit", "student.trained_beside=[heads]", here], "must name routers"),
        (["student.add_teacher=vit", "student.trained_beside=[routers,stem]", here], "names 'stem', but can only"),
        (["student.remove_teacher=vit", "student.path=x", here], "student.path is set, but student.remove_teacher"),
        (["student.add_teacher=vit", f"from={unfinished}"], "this run is unfinished; the command that started it"),
        (["student.add_teacher=vit", f"from={place}/none"], "there is no student at"),
        (["student.add_teacher=vit", there], "has a path of it already; its teachers: dinov2, vit"),
        (["student.update_teacher=vit", here], "has no path of it; its teachers: dinov2"),
        (["student.remove_teacher=sam", here], "has no path of it; its teachers: dinov2"),
        (["student.add_teacher=vit", f"from={summing}", "student.router=sum"], "it has no routers"),
        (["student.add_teacher=vit", here, "student.adapter_ratio=2"], "student.adapter_ratio is 2, but 4 in the"),
        (["student.add_teacher=vit", here, "student.noisy_gating=false"], "noisy_gating is False, but True in"),
        (["student.add_teacher=vit", here, "data.tasks=[semseg,edge]"], "data.tasks have the channels"),
        (
            ["student.update_teacher=vit", there, "teachers.vit.options.embed_dim=24"],
            r"vit has the widths \[24, 24, 24, 24\], but the path in .* \[16, 16, 16, 16\]: remove that one",
        ),
        (["student.add_teacher=vit", here, f"student.path={place}/none"], "there is no path file at"),
    ):
        with pytest.raises(UserError, match=message):
            train(load("name=refused", *overrides))
    assert not (place / "runs" / "refused").exists()

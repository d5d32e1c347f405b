"""A run that is interrupted ends as one that is not, whatever interrupts it and whatever it finds."""

import json
import os
import runpy
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
import torch

from sak import Student, config
from sak.config.schema import STAGES
from sak.errors import UserError
from sak.tasks import build as build_task
from sak.training import checkpoint, train
from sak.training.best import best, keep_best
from sak.training.run_directory import RunDirectory, lock
from sak.training.stage import StageTraining
from sak.training.tracking import read_scalars
from sak.training.validation import Validation

STRESS = Path(__file__).parent / "stress_resume.py"
STEP, EVALUATION = (StageTraining, "_step"), (Validation, "evaluate")


class Killed(Exception):
    """Stands for SIGKILL: nothing of ours handles it."""


def stress(kills, *options):
    process = subprocess.run([sys.executable, STRESS, "--kills", str(kills), *options], capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    assert f"{kills} kills" in process.stdout
    assert ": 0 differences" in process.stdout


@pytest.mark.slow
def test_killed_at_a_few_random_moments(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(STRESS.parent)
    count, different = runpy.run_path(str(STRESS))["stress"](tmp_path, 3, half=False)
    assert (count["all"], different) == (3, [])


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, 50])
@pytest.mark.parametrize("options", [[], ["--half"]])
def test_killed_at_many_random_moments(kills, options):
    stress(kills, *options)


@pytest.fixture
def settings(tiny):
    """The tiny experiment without its slower tasks, and with a checkpoint at every step."""

    def load(*overrides):
        every = [f"stages.{stage}.checkpoint_every=1" for stage in STAGES]
        return config.load(tiny, ["data.tasks=[semseg,normals]", *every, *overrides])

    return load


def interrupt(monkeypatch, method, when, settings):
    """Train until a method, (class, name), is called the given number of times."""
    calls = []
    real = getattr(*method)

    def dying(self, *arguments):
        calls.append(arguments)
        if len(calls) == when:
            raise Killed
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(*method, dying)
        with pytest.raises(Killed):
            train.train(settings)


def outcome(run):
    weights = torch.load(checkpoint.newest(run.checkpoints), weights_only=True)["student"]
    return run.metrics.read_text(), {key: value.tolist() for key, value in weights.items()}


def test_a_run_goes_on_before_its_corrupt_checkpoints_to_the_same_end(settings, monkeypatch):
    whole = train.train(settings("name=whole"))
    own = settings("name=corrupt")
    interrupt(monkeypatch, STEP, 7, own)  # the fourth of the second stage
    checkpoints = RunDirectory(own).checkpoints
    newest = checkpoint.newest(checkpoints)
    assert newest.name == "multitask-0000003.pt"
    os.truncate(newest, 5000)
    with pytest.warns(UserWarning, match=r"multitask-0000003\.pt is corrupt.*goes on from multitask-0000002\.pt"):
        run = train.train(own)
    assert outcome(run) == outcome(whole)
    assert sorted(file.name for file in checkpoints.iterdir()) == [
        *("distill-0000002.pt", "distill-0000003.pt"),
        *("multitask-0000003.pt", "multitask-0000003.pt.corrupt", "multitask-0000004.pt"),
    ]


def test_without_an_intact_checkpoint_it_does_not_begin_anew_by_itself(settings, monkeypatch):
    own = settings()
    interrupt(monkeypatch, STEP, 3, own)
    files = list(RunDirectory(own).checkpoints.iterdir())
    for file in files:
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read \(2 are corrupt; .*distill-0000002\.pt"):
        train.train(own)
    for file in files:
        file.unlink()
    assert train.train(own).finished


def test_a_checkpoint_of_another_student_is_one_line(settings, monkeypatch):
    own = settings()
    interrupt(monkeypatch, STEP, 3, own)
    path = checkpoint.newest(RunDirectory(own).checkpoints)
    state = checkpoint.load(path)
    state["student"].popitem()
    torch.save(state, path)
    with pytest.raises(UserError, match=r"distill-0000002\.pt is of another student: Missing key"):
        train.train(own)


def test_what_killed_writers_left_is_removed_by_the_next_start(settings):
    own = settings("stages.distill.steps=1", "stages.multitask.steps=1")
    run = RunDirectory(own)
    run.open(own)
    run.close()
    left = [run.checkpoints / ".distill-0000001.pt.123.partial", run.path / ".results.md.123.partial"]
    bundle = run.path / ".student.123.partial"
    foreign = run.path / "evaluation" / ".maps.partial"  # another command may be at work there
    for directory in (run.checkpoints, bundle, foreign):
        directory.mkdir(parents=True)
    for file in (*left, bundle / "model.safetensors"):
        file.write_bytes(b"half")
    train.train(own)
    assert list(run.path.rglob("*.partial")) == [foreign]


@pytest.mark.parametrize("kill", [2, 4, 6])  # in the first stage, between them, in the second
def test_nothing_of_the_checkpoint_stays_in_memory(settings, monkeypatch, kill):
    own = settings()
    interrupt(monkeypatch, STEP, kill, own)
    real_load, real_step, read, left = checkpoint.load, StageTraining._step, [], set()

    def load(*arguments):
        state = real_load(*arguments)
        read.extend(
            map(weakref.ref, (state["student"]["stem.vit.pos_embed"], state["optimizer"]["state"][0]["exp_avg"]))
        )
        return state

    def step(self, *arguments):
        ours = self.learner.optimizer.state_dict()["state"].get(0, {}).get("exp_avg")  # on a CPU, the very tensor
        tensors = [of() for of in read]
        left.update(tuple(tensor.shape) for tensor in tensors if tensor is not None and tensor is not ours)
        return real_step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "load", load)
        patch.setattr(StageTraining, "_step", step)
        train.train(own)
    assert len(read) == 2
    assert left == set()


def test_keep_last(settings):
    run = train.train(settings("stages.distill.keep_last=1", "stages.multitask.keep_last=3"))
    assert sorted(file.name for file in run.checkpoints.iterdir()) == [
        "distill-0000003.pt",
        *(f"multitask-000000{step}.pt" for step in (2, 3, 4)),
    ]


def test_the_noise_of_a_step_does_not_depend_on_what_came_before(settings, monkeypatch):
    """Else a resumed run, or one rank of several, would need the random state of all that was."""
    drawn = []
    real = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *shape, **how: drawn.append(real(*shape, **how)) or drawn[-1])
    own = settings("name=whole", "stages.multitask.checkpoint_every=2", "stages.multitask.evaluate_every=null")
    train.train(own)
    per_step = len(drawn) // 4
    whole, drawn[:] = [noise.tolist() for noise in drawn], []
    assert all(whole[0] != noise for noise in whole[1:])

    own = settings("name=resumed", "stages.multitask.checkpoint_every=2", "stages.multitask.evaluate_every=null")
    interrupt(monkeypatch, STEP, 6, own)  # after the checkpoint of two steps
    drawn.clear()
    torch.manual_seed(4711)
    train.train(own)
    assert [noise.tolist() for noise in drawn] == whole[2 * per_step :]


def test_an_evaluation_that_a_kill_prevented_is_made_up_for(settings, monkeypatch):
    own = settings("stages.multitask.evaluate_every=2")
    interrupt(monkeypatch, EVALUATION, 1, own)
    run = train.train(own)
    assert [scalar.step for scalar in read_scalars(run.events)["multitask/metrics/semseg/miou"]] == [2, 4]


def test_the_best_evaluated_student_is_kept_through_a_kill(settings, monkeypatch):
    best_of = ["stages.multitask.evaluate_every=1", "stages.multitask.checkpoint_every=4"]
    best_of += ["stages.multitask.keep_best=normals.mean_error", "stages.multitask.optim.lr=0.02"]
    whole = train.train(settings("name=whole", *best_of))
    lowest = min(read_scalars(whole.events)["multitask/metrics/normals/mean_error"], key=lambda scalar: scalar.value)
    record = best(whole.student_best, "normals.mean_error")
    assert record == {"metric": "normals.mean_error", "value": pytest.approx(lowest.value), "step": lowest.step}
    assert f"after step {record['step']}, the best in normals.mean_error" in whole.results.read_text()

    own = settings("name=killed", *best_of)
    interrupt(monkeypatch, EVALUATION, 4, own)
    killed = train.train(own)
    for name in ("best.json", "model.safetensors", "config.json"):
        assert (killed.student_best / name).read_bytes() == (whole.student_best / name).read_bytes()
    assert Student.from_pretrained(killed.student_best).sources == ("stem", "dinov2")


def test_best_means_strictly_better_in_the_direction_of_the_metric(trained, tmp_path):
    student, tasks = Student.from_pretrained(trained / "student"), {"normals": build_task("normals", "pascal_context")}

    def offer(value, step, metric="normals.mean_error"):
        measured = dict.fromkeys(tasks["normals"].measures, value)
        keep_best(tmp_path / "best", metric, tasks, {"normals": measured}, student, step)
        return (best(tmp_path / "best", metric) or {}).get("step")

    assert [offer(float("nan"), 1), offer(30.0, 2), offer(30.0, 3), offer(31.0, 4), offer(29.0, 5)] == [
        None,
        2,
        2,
        2,
        5,
    ]
    assert best(tmp_path / "best", "semseg.miou") is None  # a record of another metric is none
    assert json.loads((tmp_path / "best" / "best.json").read_text())["value"] == 29.0


def test_a_worker_that_outlives_its_killed_run_does_not_hold_the_lock(tmp_path):
    held = lock(tmp_path)
    started, start = os.pipe()
    if (worker := os.fork()) == 0:
        os.write(start, b".")
        time.sleep(60)
        os._exit(0)
    try:
        os.read(started, 1)
        with pytest.raises(UserError, match="another process is at work"):
            lock(tmp_path)
        held.close()  # as the end of the process does
        lock(tmp_path).close()
    finally:
        os.kill(worker, 9)
        os.waitpid(worker, 0)

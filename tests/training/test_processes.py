"""Two real processes (gloo) train what one does, stop together, and are not left behind by one that dies."""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from sak import Student, config
from sak.bundles.build import build_committee, build_student, build_tasks
from sak.processes import share_warnings
from sak.training import checkpoint, objectives
from sak.training.run_directory import RunDirectory
from sak.training.stage import StageTraining
from sak.training.tracking import read_scalars
from sak.training.train import train

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

# A step of four images in four micro-batches, whatever the number of processes, which see each other's teachers.
EVERYWHERE = [
    "stages.distill.standardise=ema",
    "stages.multitask.standardise=ema",
    *(f"stages.{stage}.{value}" for stage in ("distill", "multitask") for value in ("batch_size=4", "keep_last=9")),
    "stages.distill.checkpoint_every=1",
    "stages.multitask.checkpoint_every=1",
    "stages.multitask.keep_best=normals.mean_error",
    "stages.multitask.optim.lr=1e-4",  # AdamW turns rounding errors of gradients that are 0 into steps of this size
    "data.tasks=[semseg,normals]",
]
ALONE = [*EVERYWHERE, "stages.distill.accumulate=4", "stages.multitask.accumulate=4"]
RECOMPUTED = "student.activation_checkpointing=true"
TOGETHER = [*EVERYWHERE, "stages.distill.accumulate=2", "stages.multitask.accumulate=2"]
# What the processes must agree about: statistics of the teachers, weights of the tasks.
LEARNED = [
    "student.router=token",
    "stages.distill.standardise=phi_s",
    "stages.multitask.standardise=phi_s",
    "stages.multitask.teacher_dropping=0.5",
    "stages.multitask.task_balance=gradnorm",
    "stages.multitask.balance=0.1",
    "stages.multitask.evaluate_every=100",
]


def together(file, drawing):
    """What each of the two processes does."""
    share_warnings()
    # The processes stay for the next run.
    end, Accelerator.end_training = Accelerator.end_training, lambda self: None
    step, rank = StageTraining._step, int(os.environ["RANK"])

    def interrupted(self, batches, number):
        if (rank, self.stage, number) == (1, "multitask", 1):
            os.kill(os.getpid(), signal.SIGTERM)  # the second process alone
        return step(self, batches, number)

    StageTraining._step = interrupted
    try:
        train(config.load(file, [*TOGETHER, "name=stopped"]))
    except KeyboardInterrupt as stop:
        print(f"rank {rank}: {stop}", flush=True)
    StageTraining._step = step
    with drawing():  # which the first process does while the other one waits
        train(config.load(file, [*TOGETHER, "name=stopped"]))
    sharded = [*TOGETHER, "distributed=fsdp"]
    train(config.load(file, [*sharded, "name=handed_over"]))
    train(config.load(file, [*sharded, "name=fsdp", RECOMPUTED]))
    train(config.load(file, [*TOGETHER, *LEARNED, "name=learned"]))
    warnings.warn("said by all", stacklevel=1)
    end(Accelerator(cpu=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_text):
    """With a config of the tiny experiment on eight training images."""
    folder = tmp_path_factory.mktemp("processes")
    archive = Path(shutil.copytree(ROOT / "tests/fixtures/pascal_format/PASCALContext", folder / "archive"))
    names = archive / "ImageSets/Context/train.txt"
    names.write_text("".join((names.read_text().splitlines(keepends=True) * 8)[:8]))
    (folder / "tiny.yaml").write_text(tiny_text.format(output=folder / "runs", root=archive))
    return folder


@pytest.fixture(scope="module")
def runs(folder, processes, drawing):
    """Of one process: "one". Of two: "stopped" and resumed; "fsdp", with a sharded student and activation
    checkpointing; "handed_over" by one process to two that shard the student. Of either: "learned"."""
    file = folder / "tiny.yaml"
    one = train(config.load(file, [*ALONE, "name=one"]))
    train(config.load(file, [*ALONE, *LEARNED, "name=learned_by_one"]))
    go_back(one, "multitask", 2, config.load(file, [*ALONE, "name=handed_over"]))
    ended = processes.two(lambda: together(file, drawing), folder)
    assert [process.code for process in ended] == [0, 0], ended
    paths = [path for path in (folder / "runs").iterdir() if not path.name.startswith(".")]
    found = {path.name: RunDirectory(config.load(path / "config.yaml")) for path in paths}
    out, err = ("".join(getattr(process, kind) for process in ended) for kind in ("out", "err"))
    return {**found, "stdout": out, "stderr": err}


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def go_back(run, stage, step, settings):
    """Start a run of these settings with what another was after this step of the stage."""
    copy = RunDirectory(settings)
    shutil.copytree(run.path, copy.path)
    later = [path for path in copy.checkpoints.iterdir() if path.name > f"{stage}-{step:07d}.pt"]
    for path in [*later, copy.metrics]:
        path.unlink()
    config.save(settings, copy.config_file)
    return settings


def content(run, stage, step):
    return checkpoint.load(checkpoint.path_of(run.checkpoints, checkpoint.Progress(stage, step)))


def curves(run):
    """{name of a loss: {step: value}} of all terms in both stages."""
    scalars = read_scalars(run.events)
    return {tag: {each.step: each.value for each in scalars[tag]} for tag in scalars if "/loss/" in tag}


@pytest.mark.parametrize("name", ["stopped", "fsdp", "handed_over"])
def test_two_processes_have_the_losses_and_metrics_of_one(runs, name):
    expected = curves(runs["one"])
    assert list(expected["multitask/loss/total"]) == [1, 2, 3, 4]
    assert curves(runs[name]) == {term: pytest.approx(curve, rel=1e-5) for term, curve in expected.items()}
    expected, found = (json.loads(run.metrics.read_text()) for run in (runs["one"], runs[name]))
    assert found == {task: pytest.approx(values, abs=0.05) for task, values in expected.items()}


@pytest.mark.parametrize("name", ["stopped", "fsdp"])
@pytest.mark.parametrize("stage", ["distill", "multitask"])
def test_two_processes_have_the_gradients_and_batch_statistics_of_one(runs, name, stage):
    expected, found = content(runs["one"], stage, 1), content(runs[name], stage, 1)
    for number, state in expected["optimizer"]["state"].items():
        gradient, theirs = state["exp_avg"], found["optimizer"]["state"][number]["exp_avg"]  # 0.1 times, after one step
        torch.testing.assert_close(theirs, gradient, rtol=1e-4, atol=1e-6, msg=lambda m, n=number: f"{n}: {m}")
    for key, value in expected["student"].items():
        if "running" in key or "num_batches" in key:
            torch.testing.assert_close(found["student"][key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["stopped", "fsdp"])
def test_batch_statistics_are_those_of_one_process_after_an_evaluation_too(runs, name):
    expected, found = (content(run, "multitask", 4)["student"] for run in (runs["one"], runs[name]))
    for key, value in expected.items():
        if "running" in key or "num_batches" in key:
            torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-3)  # a step left out: 2e-2, and the number


@pytest.mark.parametrize("name", ["stopped", "fsdp"])
def test_checkpoints_and_bundles_do_not_tell_by_how_many_they_were_written(runs, name):
    for stage, step in (("distill", 3), ("multitask", 4)):
        assert shape(content(runs[name], stage, step)) == shape(content(runs["one"], stage, step))
    assert files(runs[name]) == files(runs["one"])
    for one, two in ((runs["one"].student, runs[name].student), (runs["one"].student_best, runs[name].student_best)):
        assert shape(Student.from_pretrained(two).state_dict()) == shape(Student.from_pretrained(one).state_dict())


@pytest.mark.parametrize("name", ["stopped", "fsdp", "handed_over"])
def test_two_processes_have_the_running_statistics_of_the_teachers_of_one(runs, name):
    one, two = (content(run, "multitask", 4)["standardise"]["ema"] for run in (runs["one"], runs[name]))
    assert one["teachers.dinov2.0.count"] == (3 + 4) * 4  # micro-batches
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)


def test_two_processes_agree_about_what_is_learned_beside_the_student(runs):
    one, two = (content(runs[name], "multitask", 4) for name in ("learned_by_one", "learned"))
    torch.testing.assert_close(two["task_balance"]["learned"], one["task_balance"]["learned"], rtol=1e-4, atol=0)
    assert list(one["standardise"]) == ["phi_s"]
    torch.testing.assert_close(two["standardise"]["phi_s"], one["standardise"]["phi_s"], rtol=1e-4, atol=1e-5)
    found = curves(runs["learned"])
    for term, curve in curves(runs["learned_by_one"]).items():
        assert found[term] == pytest.approx(curve, rel=1e-4), term


def shape(state):
    """A state with shapes and types in place of what it holds: a process's share of a tensor is no tensor."""
    if isinstance(state, torch.Tensor):
        return type(state), state.dtype, tuple(state.shape), state.device.type
    if isinstance(state, dict):
        return {key: shape(value) for key, value in state.items()}
    return [shape(value) for value in state] if isinstance(state, list) else type(state)


def files(run):
    paths = {path.relative_to(run.path) for path in run.path.rglob("*") if path.is_file()}
    return {path for path in paths if path.parts[0] != "events" and path.suffix != ".png"}


def test_what_two_processes_wrote_one_goes_on_from(runs, folder):
    settings = config.load(folder / "tiny.yaml", [*ALONE, "name=fsdp_and_back", RECOMPUTED])
    back = train(go_back(runs["fsdp"], "multitask", 1, settings))
    found = curves(back)
    for term, curve in curves(runs["one"]).items():
        assert found[term] == pytest.approx(curve, rel=1e-5), term


def test_all_stop_after_the_same_step_and_one_process_speaks(runs):
    out = runs["stdout"]
    for rank in (0, 1):
        assert f"rank {rank}: stopped after step 2 of 4 of the stage multitask" in out
    assert (out.count("teacher dinov2"), out.count("going on from"), out.count("semseg")) == (5, 2, 4)  # one of each
    assert runs["stderr"].count("UserWarning: said by all") == 1
    assert sorted(path.name for path in runs["stopped"].panels.iterdir())[-1:] == ["multitask-0000004.png"]


@pytest.mark.parametrize("stage", ["distill", "multitask"])
def test_every_trained_weight_gets_a_gradient(folder, stage):
    # DDP waits for each of them.
    settings = config.load(folder / "tiny.yaml", ["student.levels=[0,2]", "teachers.dinov2.levels=[0,3]"])
    tasks, committee = build_tasks(settings.data), build_committee(settings)
    student = build_student(settings, tasks, committee.dims)
    objectives.choose_trained_weights(student, stage, distils=True)
    output = student(torch.rand(1, 3, 96, 96), tasks=None if stage == "multitask" else ())
    maps = [*output.predictions.values(), *(level for levels in output.paths.values() for level in levels)]
    sum((level**2).sum() for level in maps).backward()
    trained = {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert trained
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []


@pytest.mark.slow
def test_a_killed_process_ends_the_job_and_the_same_command_goes_on(folder, processes, monkeypatch):
    overrides = ["name=killed", "stages.distill.steps=1", "stages.multitask.steps=500", *EVERYWHERE]
    run = folder / "runs" / "killed"
    tool, arguments = ROOT / "tools/train.py", [folder / "tiny.yaml", *overrides]
    pipe = subprocess.PIPE
    command = [*TORCHRUN, tool, *arguments]
    job = subprocess.Popen(command, cwd=folder, env=environment(), stdout=pipe, stderr=pipe, text=True)
    wait_for(run / "checkpoints", "multitask-*.pt", job)
    os.kill(second_process(job), signal.SIGKILL)
    _, err = job.communicate(timeout=120)
    assert job.returncode == 1
    assert re.search(r"exitcode *: -9", err), err  # torchrun names who was killed
    # The other one says so too, unless torchrun's SIGTERM is faster than its line; a traceback it has not.
    assert err.count("error: another process of this job has ended or does not answer") <= 1, err
    assert "sak/training/train.py" not in err, err
    assert not (run / "metrics.json").exists()

    # It goes on, and meets an image that cannot be read: one of the two processes does.
    (image,) = (folder / "archive/JPEGImages").glob("2008_001000.jpg")
    whole = image.read_bytes()
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
    try:
        image.write_bytes(whole[:1500])
        ended = processes.two(lambda: runpy.run_path(str(tool), run_name="__main__"), folder, 120)
    finally:
        image.write_bytes(whole)
    assert [process.code for process in ended] == [2, 2], ended
    assert sum(len(re.findall(r"going on from \S*multitask-", process.out)) for process in ended) == 1, ended
    assert sum(len(re.findall(r"error: .*2008_001000\.jpg", process.err)) for process in ended) == 1, ended


def wait_for(directory, pattern, job):
    deadline = time.monotonic() + 240
    while not list(directory.glob(pattern)):
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def second_process(job):
    """The process of rank 1 among torchrun's children."""
    for children in Path(f"/proc/{job.pid}/task").glob("*/children"):
        for child in children.read_text().split():
            if b"RANK=1" in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                return int(child)
    raise AssertionError("torchrun has no second process")

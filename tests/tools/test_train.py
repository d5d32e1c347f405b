"""The command itself, also in processes of its own."""

import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sak import cli, config
from sak.training.checkpoint import newest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "train.py"


def start(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, TOOL, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def finish(*arguments):
    process = start(*arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def wait_for(pattern, directory, alive):
    deadline = time.monotonic() + 120
    while not list(directory.glob(pattern)):
        assert alive()
        assert time.monotonic() < deadline
        time.sleep(0.02)


STEPS = [
    f"stages.{stage}.{value}" for stage in ("distill", "multitask") for value in ("steps=15", "checkpoint_every=1")
]


def test_killed_in_either_stage_and_started_again_it_finishes(tiny, tmp_path, processes, call_tool):
    run = tmp_path / "runs" / "tiny"
    for stage in ("distill", "multitask"):
        pid = processes.start_tool([TOOL, tiny, *STEPS], tmp_path / f"{stage}.log")
        wait_for(f"{stage}-*.pt", run / "checkpoints", lambda: not os.waitpid(pid, os.WNOHANG)[0])  # noqa: B023
        os.kill(pid, signal.SIGKILL)
        assert processes.end_of(pid) == -signal.SIGKILL
        assert not (run / "metrics.json").exists()
    code, out, _ = call_tool("train", tiny, *STEPS)
    assert code == 0
    assert "going on from" in out
    assert "semseg" in out
    code, out, _ = call_tool("train", tiny, *STEPS)
    assert code == 0
    assert f"already finished: {run / 'results.md'}" in out


def test_control_c_stops_with_a_checkpoint(tiny, tmp_path):
    checkpoints = tmp_path / "runs" / "tiny" / "checkpoints"
    process = start(tiny, *STEPS, "stages.distill.steps=500")
    wait_for("distill-*.pt", checkpoints, lambda: process.poll() is None)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    step = re.search(r"stopped after step (\d+) of 500 of the stage distill; the same command goes on from there", err)[
        1
    ]
    assert newest(checkpoints).name == f"distill-{int(step):07d}.pt"
    assert "Traceback" not in err


def replace(old, new):
    return lambda config, archive: config.write_text(config.read_text().replace(old, new))


def remove(name):
    return lambda config, archive: (archive / name).unlink()


def truncate(name):
    return lambda config, archive: os.truncate(archive / name, 1500)


def other_weights(file, archive):
    safetensors.torch.save_file({"norm.weight": torch.ones(24)}, archive / "weights.safetensors")
    replace("weights: random", f"weights: {archive}/weights.safetensors")(file, archive)


def other_experiment(file, archive):
    run = archive.parent / "runs" / "tiny"
    run.mkdir(parents=True)
    config.save(config.load(file), run / "config.yaml")
    replace("batch_size: 2", "batch_size: 1")(file, archive)


def no_run(config, archive):
    run = archive.parent / "runs" / "tiny"
    run.mkdir(parents=True)
    (run / "thesis.tex").write_text("years of work")


MISTAKES = {
    "config missing": (lambda config, archive: config.unlink(), "no config file at"),
    "misspelt key": (replace("batch_size: 2", "batchsize: 2"), "unknown key stages.distill.batchsize; .*batch_size"),
    "unknown data set": (
        replace("dataset: pascal_context", "dataset: pascal"),
        "unknown data set 'pascal'; known: mini_",
    ),
    "unknown task": (replace("normals,", "surface,"), "unknown task 'surface'; known: semseg"),
    "unknown family": (replace("family: dinov2", "family: dino"), "unknown family 'dino'.*dinov2"),
    "file missing": (remove("sal_distill/2008_001001.png"), r"sal_distill/2008_001001\.png"),
    "truncated JPEG": (truncate("JPEGImages/2008_001000.jpg"), r"JPEGImages/2008_001000\.jpg"),
    "no such root": (replace("root: ", "root: /nowhere"), "/nowhere.*no such directory"),
    "weights that do not fit": (other_weights, "teacher dinov2: .*weights.safetensors"),
    "levels beyond the depth": (replace("levels: [0, 1, 2, 3]", "levels: [0, 1, 2, 9]"), "9.*4 blocks"),
    "indivisible image": (replace("[96, 96]", "[96, 90]"), "96x90 is not divisible by the stem's patch size 16"),
    "different experiment": (other_experiment, "different experiment: stages.*batch_size is 2 there and 1 here"),
    "not a run": (no_run, "not empty and holds no run"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(tiny, archive, mistake, monkeypatch, capsys):
    make, message = MISTAKES[mistake]
    text = tiny.read_text()
    root = next(line.split(": ")[1] for line in text.splitlines() if "root:" in line)
    tiny.write_text(text.replace(root, str(archive)))
    make(tiny, archive)
    before = {file for file in archive.parent.rglob("*") if file.is_file()}
    monkeypatch.setattr(sys, "argv", ["train.py", str(tiny)])
    tool = runpy.run_path(str(ROOT / "tools" / "train.py"))
    with pytest.raises(SystemExit) as stop:
        cli.run(tool["main"])
    err = capsys.readouterr().err
    lines = [line for line in err.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert (stop.value.code, len(lines)) == (2, 1), err
    assert re.search(message, lines[0]), lines[0]
    assert before <= {file for file in archive.parent.rglob("*") if file.is_file()}


def test_exit_code_of_the_process():
    code, out, err = finish("missing.yaml")
    assert (code, out, err) == (2, "", "error: no config file at missing.yaml\n")

"""Jobs side by side as real processes: which GPU or cores each has, what they say, and how they end."""

import sys
import time

import pytest
import torch
from tqdm import tqdm

from sak.research.ablation import jobs
from sak.research.ablation.jobs import Job, environments, run_jobs


@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [
        (None, 3, ["0", "1", "0"]),
        ("", 2, ["0", "1"]),
        ("5,7", 4, ["5", "7", "5", "7"]),
        ("GPU-a,GPU-b", 2, ["GPU-a", "GPU-b"]),
    ],
)
def test_each_job_has_a_gpu_to_itself(monkeypatch, visible, count, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert environments(count) == [{"CUDA_VISIBLE_DEVICES": device} for device in expected]


@pytest.mark.parametrize(("cores", "count", "each"), [(8, 2, "4"), (8, 3, "2"), (2, 5, "1")])
def test_without_gpus_jobs_share_the_cores(monkeypatch, cores, count, each):
    monkeypatch.setattr(jobs, "cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert environments(count) == [{"OMP_NUM_THREADS": each}] * count
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # what the user has set stays
    assert environments(count) == [{}] * count


def job(tmp_path, name, code):
    return Job(name, [sys.executable, "-c", code], tmp_path / "logs" / f"{name}.log")


def test_real_processes_have_their_slots_environment_and_a_failure_stops_no_other(tmp_path):
    code = "import os, sys, pathlib; pathlib.Path(sys.argv[1]).write_text(os.environ['SLOT']); print('said')"
    waiting = [job(tmp_path, f"good{number}", code) for number in range(3)]
    for each in waiting:
        each.command = [*each.command, str(tmp_path / each.name)]
    waiting.insert(
        1, job(tmp_path, "bad", "import sys; print('\\r 5%\\rerror: no such thing', file=sys.stderr); sys.exit(2)")
    )
    waiting.insert(2, job(tmp_path, "mute", "raise SystemExit(3)"))
    with tqdm(total=5, disable=True) as progress:
        failed = run_jobs(waiting, [{"SLOT": "left"}, {"SLOT": "right"}], progress)
    assert failed == {"bad": "error: no such thing", "mute": "exit code 3"}
    assert {(tmp_path / f"good{number}").read_text() for number in range(3)} <= {"left", "right"}
    assert (tmp_path / "logs" / "good0.log").read_text() == "said\n"


def test_no_more_run_at_once_than_there_are_slots(tmp_path):
    code = """
import pathlib, sys, time
mine = pathlib.Path(sys.argv[1]); mine.touch(); time.sleep(0.3)
print(len(list(mine.parent.glob('running-*')))); mine.unlink()
"""
    waiting = [job(tmp_path, f"job{number}", code) for number in range(4)]
    for each in waiting:
        each.command = [*each.command, str(tmp_path / f"running-{each.name}")]
    with tqdm(total=4, disable=True) as progress:
        assert run_jobs(waiting, [{}, {}], progress) == {}
    assert max(int(file.read_text()) for file in (tmp_path / "logs").iterdir()) <= 2


def test_a_stop_reaches_each_process_and_waits_for_its_end(tmp_path, monkeypatch):
    code = """
import pathlib, signal, sys, time
def stop(*_):
    time.sleep(0.2); pathlib.Path(sys.argv[1] + '.stopped').touch(); sys.exit(130)
signal.signal(signal.SIGINT, stop); pathlib.Path(sys.argv[1]).touch(); time.sleep(60)
"""
    waiting = [job(tmp_path, f"job{number}", code) for number in range(3)]
    for each in waiting:
        each.command = [*each.command, str(tmp_path / each.name)]

    class Asked(jobs.StopRequest):
        """As if Ctrl-C came once both are at work."""

        @property
        def made(self):
            return all((tmp_path / f"job{number}").exists() for number in range(2))

        @made.setter
        def made(self, value):
            pass

    monkeypatch.setattr(jobs, "StopRequest", Asked)
    started = time.monotonic()
    with tqdm(total=3, disable=True) as progress, pytest.raises(KeyboardInterrupt, match="goes on from there"):
        run_jobs(waiting, [{}, {}], progress)
    assert [(tmp_path / f"job{number}.stopped").exists() for number in range(3)] == [True, True, False]
    assert not (tmp_path / "job2").exists()  # it was never begun
    assert time.monotonic() - started < 50

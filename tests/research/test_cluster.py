"""Jobs of a cluster: through submitit's local executor, which does on this machine what Slurm does on others."""

import json
import signal
import sys
import threading
import time

import pytest
from tqdm import tqdm

from sak.errors import UserError
from sak.research.ablation import cluster
from sak.research.ablation.cluster import Command, Submitted, launcher
from sak.research.ablation.jobs import Job, run_jobs

submitit = pytest.importorskip("submitit")

# A run: says that it has begun, then ends at once with the code, or waits to be told to stop.
RUN = """
import os, signal, sys, time
def stop(*_):
    print("checkpoint written"); sys.exit(130)
signal.signal(signal.SIGINT, stop)
print("begun", flush=True)
if sys.argv[1] == "wait":
    time.sleep(60)
print("last words", os.environ.get("MASTER", "-"))
sys.exit(int(sys.argv[1]))
"""


def job_of(folder, name, code):
    (folder / "run.py").write_text(RUN)
    return Job(name, [sys.executable, str(folder / "run.py"), code], folder / "logs" / f"{name}.log")


def test_jobs_run_and_failures_are_told_by_what_they_said_last(tmp_path):
    jobs = [job_of(tmp_path, name, code) for name, code in (("good", "0"), ("bad", "3"))]
    start = launcher("local", tmp_path / "cluster", {})
    with tqdm(total=2, disable=True) as progress:
        assert run_jobs(jobs, [{}, {}], progress, start) == {"bad": "last words -"}
    assert "last words" in jobs[0].log.read_text()


def test_ctrl_c_reaches_a_job_which_stops_with_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "POLL", 0.05)
    job = job_of(tmp_path, "long", "wait")

    def press():
        while not job.log.exists() or "begun" not in job.log.read_text():
            time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    start = launcher("local", tmp_path / "cluster", {})
    with tqdm(total=1, disable=True) as progress, pytest.raises(KeyboardInterrupt, match="goes on from there"):
        run_jobs([job], [{}], progress, start)
    assert "checkpoint written" in job.log.read_text()
    # What told it to stop does not stop the next start.
    job.command = [*job.command[:2], "0"]
    with tqdm(total=1, disable=True) as progress:
        assert run_jobs([job], [{}], progress, start) == {}


def test_a_job_whose_time_is_up_writes_a_checkpoint_and_is_queued_again(tmp_path):
    job = job_of(tmp_path, "long", "wait")
    job.log.parent.mkdir()
    command = Command(list(job.command), job.log, tmp_path / "stop")
    thread = threading.Thread(target=command, daemon=True)
    thread.start()
    while not job.log.exists() or "begun" not in job.log.read_text():
        time.sleep(0.05)
    again = command.checkpoint()
    thread.join()
    assert "checkpoint written" in job.log.read_text()
    assert (again.function.command, again.function.log) == (command.command, command.log)
    assert not hasattr(again.function, "process")  # it is pickled


def test_a_job_that_does_not_come_to_its_end_has_failed(tmp_path):
    class Lost:
        job_id, state = "17", "NODE_FAIL"

        def done(self):
            return True

        def result(self):
            raise submitit.core.utils.UncompletedJobError("Job 17 (task: 0)\nhas not produced any output")

    log = tmp_path / "log"
    assert Submitted(Lost(), tmp_path / "stop", log).poll() == 1
    assert log.read_text().strip() == "has not produced any output (job 17)"


def test_a_job_that_waits_for_its_turn_gives_it_up(tmp_path):
    class Pending:
        job_id, state, cancelled = "17", "PENDING", False

        def cancel(self):
            self.cancelled = True

    job = Pending()
    Submitted(job, tmp_path / "stop", tmp_path / "log").send_signal(signal.SIGINT)
    assert job.cancelled
    assert (tmp_path / "stop").exists()


@pytest.mark.parametrize(
    ("kind", "asked", "line"),
    [
        ("slurm", {}, "--launcher slurm cannot be used (Could not detect"),
        ("local", {"slurm_partion": "gpu"}, "--launcher local cannot be used ("),
        ("local", {"nodes": 2}, "--launcher local cannot be used (LocalExecutor can use only one node"),
    ],
)
def test_what_a_cluster_does_not_know_is_said(tmp_path, monkeypatch, kind, asked, line):
    monkeypatch.setenv("PATH", "")  # no srun
    with pytest.raises(UserError) as refused:
        launcher(kind, tmp_path / "cluster", asked)
    assert line in str(refused.value)


def test_without_submitit_its_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"needs submitit: pip install 'sak\[slurm\]'"):
        launcher("slurm", tmp_path, {})


def test_a_refused_launcher_leaves_nothing_on_disk(call_tool, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    before = set(tmp_path.rglob("*"))
    for more, line in (
        (["--launcher", "slurm"], "--launcher slurm cannot be used"),
        (["--launcher", "local", "--resource", "nodes=2"], "--launcher local cannot be used"),
        (["--launcher", "local", "--resource", "nodes"], "--resource nodes is not of the form KEY=VALUE"),
        (["--resource", "nodes=1"], "--resource is of a cluster's runs"),
        (["--launcher", "moon"], "invalid choice: 'moon'"),
    ):
        code, _, errors = call_tool("ablate_teachers", tiny, "--subsets", "none", *more)
        assert (code, len(errors)) == (2, 1)
        assert line in errors[0]
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.slow  # three trainings in processes of their own
def test_an_ablation_by_jobs_is_that_of_processes(call_tool, tiny, tmp_path):
    options = ["--losses", "l2", "stages.distill.steps=1", "stages.multitask.steps=1", "--output"]
    tables = []
    for name, launcher_options in (("jobs", ["--launcher", "local"]), ("processes", [])):
        code, _, errors = call_tool("ablate_teachers", tiny, *options, tmp_path / name, *launcher_options)
        assert (code, errors) == (0, [])
        rows = json.loads((tmp_path / name / "ablation.json").read_text())["rows"]
        tables.append([row["metrics"] for row in rows])
    assert tables[0] == tables[1]
    assert len(list((tmp_path / "jobs" / "cluster").glob("*/*_result.pkl"))) == 3  # with the trial

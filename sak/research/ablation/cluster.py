"""Runs of an ablation as jobs of a cluster, through submitit: Slurm, or submitit's own processes to try it.

What is run there loads this module alone, which no library of models belongs to, and starts the command in a process of
its own: a job is what a process is here.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sak.errors import UserError

if TYPE_CHECKING:
    from sak.research.ablation.jobs import Job

POLL = 0.5  # seconds
# Of submitit, unless told: a GPU for each run, and a day, after which a run is queued again and goes on.
RESOURCES: dict[str, dict[str, Any]] = {
    "slurm": {"gpus_per_node": 1, "timeout_min": 1440, "stderr_to_stdout": True},
    "local": {"timeout_min": 10080, "stderr_to_stdout": True},
}
TIMEOUTS = 100  # times that a run may use its time up


class Command:
    """What a job calls: the command, told to stop by a file, or where its time is up or its place is needed.

    Args:
        log: gets what it says.
        stop: the file.
    """

    def __init__(self, command: list[str], log: Path, stop: Path):
        self.command, self.log, self.stop = command, log, stop

    def __call__(self) -> int:
        """Its exit code."""
        with open(self.log, "ab") as log:
            how = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
            self.process = subprocess.Popen(self.command, start_new_session=True, **how)  # type: ignore[call-overload]
        told = False
        while (code := self.process.poll()) is None:
            if not told and self.stop.exists():
                told = True
                self.process.send_signal(signal.SIGINT)
            time.sleep(POLL)
        return code

    def checkpoint(self) -> Any:
        """Called by submitit before the job is ended from outside: the run writes a checkpoint, and is queued again."""
        from submitit.helpers import DelayedSubmission

        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGINT)
        self.process.wait()
        return DelayedSubmission(Command(self.command, self.log, self.stop))


class Submitted:
    """A job of the cluster as a process, so far as `run_jobs` asks for one."""

    def __init__(self, job: Any, stop: Path, log: Path):
        self.job, self.stop, self.log = job, stop, log
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and self.job.done():
            try:
                self.returncode = self.job.result()
            except Exception as error:  # submitit's, of a job that did not come to its end, and says so in many lines
                with open(self.log, "a", encoding="utf-8") as log:
                    log.write(f"\n{str(error).strip().splitlines()[-1]} (job {self.job.job_id})\n")
                self.returncode = 1
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Whatever it is: the run is to stop with a checkpoint; one that still waits for its turn gives it up."""
        self.stop.touch()
        if str(self.job.state).upper() == "PENDING":
            self.job.cancel()

    def kill(self) -> None:
        if self.poll() is None:
            self.job.cancel()

    def wait(self) -> None:
        """Not for a job that was cancelled: the cluster sees to that."""


def launcher(kind: str, folder: Path, asked: Mapping[str, Any]) -> Callable[[Job, Mapping[str, str]], Submitted]:
    """What starts a job.

    Args:
        kind: a key of `RESOURCES`.
        folder: for submitit's own files, which all machines see.
        asked: of submitit's parameters, those that are not to be as in `RESOURCES`: `slurm_partition`, `cpus_per_task`.

    Raises:
        UserError: submitit is not installed, there is no such cluster here, or it knows no such parameter.
    """
    try:
        import submitit
    except ImportError:
        raise UserError("--launcher needs submitit: pip install 'sak[slurm]'") from None

    def build(place: Path) -> Any:
        executor = submitit.AutoExecutor(place / "%j", cluster=kind, slurm_max_num_timeout=TIMEOUTS)
        executor.update_parameters(**{**RESOURCES[kind], **asked})
        return executor

    try:
        with tempfile.TemporaryDirectory() as scratch:  # mistakes are told before anything is written
            build(Path(scratch))
    except (RuntimeError, NameError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise UserError(f"--launcher {kind} cannot be used ({reason})") from error
    executor = functools.cache(lambda: build(folder))

    def start(job: Job, _: Mapping[str, str]) -> Submitted:  # the cluster decides which devices a job has
        job.log.parent.mkdir(parents=True, exist_ok=True)
        stop = folder / f"{job.name}.stop"
        stop.parent.mkdir(exist_ok=True)
        stop.unlink(missing_ok=True)
        executor().update_parameters(name=job.name)
        submitted = executor().submit(Command(list(job.command), job.log.absolute(), stop.absolute()))
        return Submitted(submitted, stop, job.log)

    return start

"""Many commands side by side, each a process of its own: how an ablation is run.

Every command is one that can be interrupted and goes on where it stopped, as a training is.
"""

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from tqdm import tqdm

from sak.environment import cores
from sak.interrupt import StopRequest

POLL = 0.2  # seconds
TAIL = 4096  # bytes of a log that are looked at


@dataclass
class Job:
    """
    Attributes:
        command: with its arguments.
        log: gets what it says; a further start is appended.
        directory: that it locks while it works (``run_directory.lock``); None: none.
    """

    name: str
    command: Sequence[str]
    log: Path
    directory: Path | None = None


class Process(Protocol):
    """What `run_jobs` asks of a job at work; a `subprocess.Popen` is one."""

    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def send_signal(self, number: int, /) -> None: ...
    def kill(self) -> None: ...
    def wait(self) -> object: ...


Start = Callable[[Job, Mapping[str, str]], Process]


@dataclass
class _Working:
    job: Job
    process: Process
    slot: int


def run_jobs(
    jobs: Sequence[Job], environments: Sequence[Mapping[str, str]], progress: tqdm, start: Start | None = None
) -> dict[str, str]:
    """Run all, as many at a time as there are environments; one that fails does not keep the others from running.

    A directory that is locked is waited for: what was started by an ablation that was killed itself goes on alone.

    Args:
        environments: variables of each slot, beside those of this process.
        progress: is moved on by one for each job, and shows how far those at work are.
        start: starts one with the variables of its slot; None: as a process of this machine.

    Returns:
        {name: the last line of its log} of those that failed.

    Raises:
        KeyboardInterrupt: the user stopped it; each job was told so, and has ended.
    """
    waiting, failed = list(jobs), {}
    working: list[_Working] = []
    free = list(range(len(environments)))
    told = False
    before: list[str] = []
    with StopRequest() as stop:
        try:
            while working or (waiting and not stop.made):
                if stop.made and not told:
                    told = True
                    for each in working:
                        each.process.send_signal(signal.SIGINT)
                while free and waiting and not stop.made:
                    job = next((job for job in waiting if not _locked(job.directory)), None)
                    if job is None:
                        break
                    waiting.remove(job)
                    slot = free.pop(0)
                    working.append(_Working(job, (start or _start)(job, environments[slot]), slot))
                for each in [each for each in working if each.process.poll() is not None]:
                    working.remove(each)
                    free.append(each.slot)
                    if stop.made:
                        continue
                    progress.update()
                    if code := each.process.returncode:
                        failed[each.job.name] = last_line(each.job.log) or f"exit code {code}"
                alone = [job.name for job in waiting if _locked(job.directory)]
                shown = [f"{each.job.name} {_share(each.job.log)}".strip() for each in working]
                shown += [f"{name} (another process)" for name in alone]
                if shown != before:
                    progress.set_postfix_str(", ".join(shown))
                before = shown
                time.sleep(POLL)
        finally:
            for each in working:
                each.process.kill()
                each.process.wait()
    if stop.made:
        raise KeyboardInterrupt("stopped; what is finished is kept: the same command goes on from there")
    return failed


def environments(count: int) -> list[dict[str, str]]:
    """Of jobs side by side: each has a GPU to itself, in turn where there are more jobs; or its share of the cores."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    if torch.cuda.device_count():
        return [{"CUDA_VISIBLE_DEVICES": devices[slot % len(devices)]} for slot in range(count)]
    if "OMP_NUM_THREADS" in os.environ or count == 1:
        return [{}] * count
    return [{"OMP_NUM_THREADS": str(max(1, cores() // count))}] * count


def default_count() -> int:
    """One job per GPU, or one."""
    return max(1, torch.cuda.device_count())


def last_line(log: Path) -> str:
    """What a process said last, without its progress bars."""
    lines = [line.split("\r")[-1].strip() for line in _tail(log).splitlines()]
    return next((line for line in reversed(lines) if line), "")


def _start(job: Job, environment: Mapping[str, str]) -> subprocess.Popen:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with open(job.log, "ab") as log:
        # In a session of its own, so that a Ctrl-C reaches it once, from here.
        return subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )


def _locked(directory: Path | None) -> bool:
    file = directory and directory / ".lock"
    if file is None or not file.exists():
        return False
    with open(file) as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _share(log: Path) -> str:
    """The newest progress bar of a log, as in ``multitask 40%``."""
    found = re.findall(r"([\w ]+): +(\d+)%", _tail(log))
    return f"{found[-1][0].strip()} {found[-1][1]}%" if found else ""


def _tail(log: Path) -> str:
    with contextlib.suppress(FileNotFoundError), open(log, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
        return file.read().decode(errors="replace")
    return ""

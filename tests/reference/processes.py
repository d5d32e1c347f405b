"""Processes that are forked: they have the libraries loaded already, which takes longer than what most are to do."""

import gc
import os
import runpy
import signal
import sys
import time
import traceback
import warnings
from multiprocessing import forkserver
from typing import NamedTuple

from accelerate.state import AcceleratorState
from torch.distributed import TCPStore

from sak.metrics.boundary.workers import process_pool


class Ended(NamedTuple):
    code: int  # below 0: the signal that ended it
    out: str
    err: str


def start(act, out, err=None, **variables):
    """Begin a process that calls ``act()`` in an environment with these variables; gives its id.

    Args:
        out, err: files to whose ends goes what it says; both to the first, if there is no second.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    gc.freeze()  # or every collection would look at, and so copy, all that the parent has loaded
    try:
        os.environ.update(variables)
        os.setsid()
        # The parent's pool has no threads here, and its server of processes is no child of this one.
        process_pool.cache_clear()
        forkserver._forkserver.__init__()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number, file in ((1, out), (2, err or out)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        warnings.showwarning = lambda *about: sys.stderr.write(warnings.formatwarning(*about[:4]))  # pytest keeps them
        act()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def start_tool(command, log):
    """Begin a tool, (file, its arguments), that says everything to the log; gives the process's id."""

    def act():
        sys.argv = list(map(str, command))
        runpy.run_path(sys.argv[0], run_name="__main__")

    return start(act, log)


def end_of(pid):
    """Its exit code, or below 0 the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def two(act, folder, timeout=300):
    """Call ``act()`` in two processes of one job, as torchrun starts them; gives how they ended, by rank.

    Both are killed after so many seconds. The folder gets what they say.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # through which they find each other
    job = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    job["TORCHELASTIC_USE_AGENT_STORE"] = "True"

    def alone_no_more():
        AcceleratorState._reset_state(reset_partial_state=True)  # the parent's
        act()

    files = [(folder / f"out{rank}", folder / f"err{rank}") for rank in range(2)]
    for file in (file for both in files for file in both):
        file.write_text("")
    pids = [start(alone_no_more, *files[n], **job, RANK=str(n), LOCAL_RANK=str(n)) for n in range(2)]
    deadline, codes = time.monotonic() + timeout, {}
    while len(codes) < 2:
        for pid in set(pids) - codes.keys():
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                codes[pid] = os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    said = [[file.read_text() for file in both] for both in files]
    return [Ended(codes[pid], *texts) for pid, texts in zip(pids, said, strict=True)]

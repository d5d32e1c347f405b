"""Two processes of one job, as torchrun starts them, but forked: the libraries are loaded already, which takes long."""

import gc
import multiprocessing
import os
import signal
import sys
import time
import traceback
import warnings
from typing import NamedTuple

from accelerate.state import AcceleratorState
from torch.distributed import TCPStore


class Ended(NamedTuple):
    code: int  # below 0: the signal that ended it
    out: str
    err: str


def run(act, folder, timeout=300):
    """Call ``act()`` in both, which stand in the folder; gives how they ended by rank.

    Both are killed after so many seconds.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # through which they find each other
    processes = [
        multiprocessing.get_context("fork").Process(target=_one, args=(act, folder, rank, store.port))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    deadline = time.monotonic() + timeout
    for process in processes:
        process.join(max(0, deadline - time.monotonic()))
    for process in processes:
        process.kill()
        process.join()
    said = [[(folder / f"{name}{rank}").read_text() for name in ("out", "err")] for rank in range(2)]
    return [Ended(process.exitcode, *texts) for process, texts in zip(processes, said, strict=True)]


def _one(act, folder, rank, port):
    gc.freeze()  # or every collection would look at, and so copy, all that the parent has loaded
    os.chdir(folder)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{name}{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.showwarning = lambda *about: sys.stderr.write(warnings.formatwarning(*about[:4]))  # pytest collects them
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(number) for name, number in numbers.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", TORCHELASTIC_USE_AGENT_STORE="True")
    AcceleratorState._reset_state(reset_partial_state=True)  # the parent's: that it is alone
    code = 1
    try:
        act()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)

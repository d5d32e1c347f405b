"""Processes that match boundaries while the calling one goes on."""

import functools
import multiprocessing
import os
import signal
import sys
import threading
import types
from concurrent.futures import ProcessPoolExecutor


@functools.cache
def process_pool(workers: int) -> ProcessPoolExecutor:
    """One pool for the life of the program: evaluations come batch by batch, and workers take a while to start.

    The workers are forked off a server that has nothing but this package loaded: a fork of the caller could hold a
    CUDA context, or the locks of its threads.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sak.metrics.boundary.evaluation"])
    return _Pool(workers, mp_context=context, initializer=_start_worker)


class _Pool(ProcessPoolExecutor):
    def submit(self, *args, **kwargs):
        # This starts workers, which would run the caller's script again: it may be unguarded, or no file at all.
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            return super().submit(*args, **kwargs)
        finally:
            sys.modules["__main__"] = main


def _start_worker() -> None:
    # Ctrl-C, and a scheduler's SIGTERM, reach the whole process group; the main process alone decides how to stop ...
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # ... and a worker of one that was killed must not wait for work for ever.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()  # type: ignore[union-attr]  # a worker has one
    os._exit(1)

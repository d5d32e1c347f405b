"""Taking turns among processes."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm


@contextlib.contextmanager
def one_at_a_time(path: Path, waiting: str) -> Iterator[None]:
    """Make `path` in the block while no other process does; who comes second says `waiting`, and waits.

    The lock is a hidden file beside `path`, which is removed in the end. A process that is killed holds none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f".{path.name}.lock")
    while True:
        with open(place, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting:
                    tqdm.write(waiting)
                waiting = ""  # it is said once
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:
                pass  # a file system without locks: nobody can wait there
            if not _is_at(file.fileno(), place):
                continue  # the one before has removed what was waited for
            try:
                yield
            finally:
                place.unlink(missing_ok=True)
            return


def _is_at(descriptor: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), place.stat())
    except FileNotFoundError:
        return False

"""Files behind an address, https://… or s3://…, read in ranges through fsspec: nothing of them is stored here."""

import contextlib
import errno
import functools
import os
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

import fsspec

from sak.errors import UserError

TRIES, PAUSE = 4, 0.5  # seconds before the second, twice as long before each further one
BLOCK = 8 << 20  # bytes that are fetched ahead where a file is read from its start to its end
Found = TypeVar("Found")


def is_remote(place: object) -> bool:
    """Whether a place is an address, and not on a file system of this machine."""
    return re.match(r"(?!pipe:)[a-zA-Z][\w+.-]*://", str(place)) is not None


def check(address: str) -> None:
    """
    Raises:
        UserError: nothing here can speak to it.
    """
    try:
        _opened(address, os.getpid())
    except (ImportError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"{address} cannot be read here ({reason}): install what is named, or fetch it") from error


def state(address: str) -> tuple[int, str] | None:
    """Its size in bytes, and what tells this content from another under the same name; None if it is not there.

    Raises:
        OSError: its server does not answer, or does not say how large it is.
    """
    system, path = _opened(address, os.getpid())
    try:
        facts = _patiently(lambda: system.info(path), address)
    except FileNotFoundError:
        return None
    if facts.get("size") is None:
        raise OSError(errno.EIO, "its server does not say how large it is", address)
    known = [str(facts[key]) for key in ("ETag", "etag", "md5Hash", "LastModified", "mtime") if key in facts]
    return int(facts["size"]), " ".join(known)


class Sequential(contextlib.AbstractContextManager):
    """A file of so many bytes, to be read from its start on: it is fetched in large blocks.

    Raises:
        OSError: as of `read`.
    """

    def __init__(self, address: str, size: int):
        self.address, self.size, self.position = address, size, 0
        self.block, self.start = b"", 0

    def __exit__(self, *_: object) -> None:
        self.block = b""

    def seek(self, position: int) -> None:
        self.position = position

    def read(self, count: int) -> bytes:
        end = min(self.position + count, self.size)
        if not self.start <= self.position <= end <= self.start + len(self.block):
            self.start = self.position
            self.block = read(self.address, self.start, min(max(BLOCK, end - self.start), self.size - self.start))
        found = self.block[self.position - self.start : end - self.start]
        self.position = end
        return found


def read(address: str, start: int, size: int) -> bytes:
    """
    Raises:
        OSError: its server does not answer, or gives something else than the range.
    """
    system, path = _opened(address, os.getpid())
    found = b"" if not size else _patiently(lambda: system.cat_file(path, start=start, end=start + size), address)
    if len(found) != size:
        reason = f"its server gave {len(found):,} bytes where {size:,} were asked for: it must take ranges"
        raise OSError(errno.EIO, reason, address)
    return found


@functools.lru_cache(maxsize=64)
def _opened(address: str, process: int) -> tuple[Any, str]:
    """`process` is its id: connections are no worker's that inherits them."""
    options = {"client_kwargs": {"trust_env": True}} if address.startswith("http") else {}  # as proxies are named
    return fsspec.core.url_to_fs(address, skip_instance_cache=True, **options)


def _patiently(ask: Callable[[], Found], address: str) -> Found:
    """What is asked for, if need be at a further try: connections break.

    Raises:
        FileNotFoundError: it is not there.
        OSError: all tries were in vain.
    """
    pause = PAUSE
    for left in reversed(range(TRIES)):
        try:
            return ask()
        except FileNotFoundError:
            raise
        except Exception as error:  # of many libraries
            if not left:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise OSError(errno.EIO, reason, address) from error
        time.sleep(pause)
        pause *= 2
    raise AssertionError("TRIES is 0")

"""NumPy files of structured types that several processes fill at places of their own: sparse, mapped for reading."""

import contextlib
import fcntl
import functools
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy


@functools.cache
def header_of(dtype: np.dtype, count: int) -> bytes:
    buffer = io.BytesIO()
    array = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    npy.write_array_header_1_0(buffer, array)
    return buffer.getvalue()


def field_place(record: np.dtype, name: str) -> tuple[np.dtype, int]:
    """Type and offset of a field of a structured type."""
    fields: Any = record.fields  # which other types lack
    return fields[name][:2]


def data_offset(dtype: np.dtype, count: int) -> int:
    return len(header_of(dtype, count))


def make_array(path: Path, dtype: np.dtype, count: int) -> None:
    """A .npy file of zeros, sparse; one that is there keeps its data and gets its header and length right."""
    header = header_of(dtype, count)
    size = len(header) + count * dtype.itemsize
    if path.exists() and path.stat().st_size == size:
        with open(path, "rb") as file:
            if file.read(len(header)) == header:
                return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    with os.fdopen(descriptor, "r+b") as file:
        file.write(header)
        file.truncate(size)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[BinaryIO]:
    """The file, opened to be read and written while no other process, on whatever machine, has it so.

    On a network file system the lock of the whole file is also what makes a machine read anew what others wrote, and
    write its own bytes through before it lets go: without it, a machine that writes a part of a page may write back the
    rest of it as it remembers it. Where a file system has no locks, processes of one machine still do not disturb each
    other.
    """
    with open(path, "r+b", buffering=0) as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield cast(BinaryIO, file)


def read_at(file: BinaryIO, position: int, size: int) -> bytes:
    return os.pread(file.fileno(), size, position)


def write_at(file: BinaryIO, position: int, data: bytes) -> None:
    # Not through the mapping: on a full disk a write to it kills the process, this one raises.
    file.seek(position)
    while data:
        data = data[file.write(data) :]


def fresh(path: Path) -> np.ndarray:
    """A copy of the array of a file as it is now: a network file system asks its server where a file is opened."""
    return np.load(path)


@functools.cache
def mapped(path: Path) -> np.ndarray:
    """The array of a file, which sees what any process writes to it."""
    return npy.open_memmap(path, mode="r")

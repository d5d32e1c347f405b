"""NumPy files of structured types that several processes fill at places of their own: sparse, mapped for reading."""

import functools
import io
import os
from pathlib import Path

import numpy as np
from numpy.lib import format as npy


@functools.cache
def header_of(dtype: np.dtype, count: int) -> bytes:
    buffer = io.BytesIO()
    array = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    npy.write_array_header_1_0(buffer, array)
    return buffer.getvalue()


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


def write_at(path: Path, position: int, data: bytes) -> None:
    # Not through the mapping: on a full disk a write to it kills the process, this one raises.
    with open(path, "r+b", buffering=0) as file:
        file.seek(position)
        while data:
            data = data[file.write(data) :]


@functools.cache
def mapped(path: Path) -> np.ndarray:
    """The array of a file, which sees what any process writes to it."""
    return npy.open_memmap(path, mode="r")

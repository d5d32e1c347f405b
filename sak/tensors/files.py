"""Files of tensors: reading what others have written, and what may go wrong with writing."""

import argparse
import contextlib
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError

from sak.errors import UserError
from sak.tensors.torchscript import is_torchscript, read_torchscript

# What training code leaves beside weights and what does nothing when it is read: its options, and numbers of NumPy.
_scalar = np.float64(0).__reduce__()[0]
INERT: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *{type(np.dtype(kind)) for kind in "?bhilqBHILQefd"},
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


def read_tensors(path: str | os.PathLike) -> object:
    """What a safetensors or torch file holds, on the CPU; never code. Its content decides which it is, not its name.

    Raises:
        UserError: it is corrupt, or holds more than tensors and plain values.
    """
    # What the libraries say is not passed on: it is about their insides, or advises to load the code too.
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if head[8:] == b"{":  # behind the length of its header
            return safetensors.torch.load_file(path)
        if head[:2] != b"PK" and head[:1] != b"\x80":  # a zip file, or the pickles of old
            raise UserError(
                f"{path} cannot be read as weights: it is neither a safetensors file nor one of torch, but "
                f"{f'begins with {head!r}' if head else 'empty'}; if it was downloaded, fetch it again"
            )
        if is_torchscript(path):
            return read_torchscript(path)
        with path.open("rb") as file, torch.serialization.safe_globals(INERT):  # given its name, torch looks at that
            return torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read as weights: {error.strerror or 'the file system refuses'}") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} cannot be read as weights: it is no file of torch, or holds code, which is never loaded; save the "
            "state_dict of its model alone"
        ) from error
    except Exception as error:  # corrupt bytes raise whatever their decoder happens to meet
        raise UserError(f"{path} cannot be read as weights: it is corrupt or cut short; fetch it again") from error


def metadata_of(path: str | os.PathLike) -> dict[str, str]:
    """The notes in the header of a safetensors file that can be read; other files have none."""
    with Path(path).open("rb") as file:
        if file.read(9)[8:] != b"{":
            return {}
    with safetensors.safe_open(path, "pt") as content:
        return content.metadata() or {}


@contextlib.contextmanager
def writing_safetensors(path: str | os.PathLike) -> Iterator[None]:
    """Make an OSError, with the file's name, of what safetensors says where the operating system refuses to write."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error

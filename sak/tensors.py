"""Files of tensors that others have written."""

import os
import pickle
from pathlib import Path

import safetensors.torch
import torch

from sak.errors import UserError


def read_tensors(path: str | os.PathLike) -> object:
    """What a safetensors or torch file holds, on the CPU; never code.

    Raises:
        UserError: it is damaged, or holds more than tensors and plain values.
    """
    try:
        if Path(path).suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its own text advises to load the code too
        raise UserError(f"{path} cannot be read as weights: it is no file of torch, or holds code") from error
    except Exception as error:  # damaged bytes raise whatever their decoder happens to meet
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path} cannot be read as weights ({reason[0]})") from error

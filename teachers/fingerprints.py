"""What tells one set of weights, or of images, from another."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn


def weights_hash(teacher: nn.Module) -> str:
    """SHA-256 of all parameters and buffers with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted({**dict(teacher.named_parameters()), **dict(teacher.named_buffers())}.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def files_hash(files: Iterable) -> str:
    """SHA-256 of the files' names (without folder and suffix) and sizes in bytes, in their order.

    Args:
        files: paths, or what has their `stem` and a `size` in bytes; a path that leads nowhere has no size.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            size = file.stat().st_size if isinstance(file, Path) else file.size
        except OSError:
            size = None  # reading the image will say so
        digest.update(f"{file.stem} {size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()

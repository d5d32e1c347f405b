"""The tensors of TorchScript archives, such as OpenAI's own files of CLIP, read without running the code beside them.

An archive is a zip file: data.pkl is a pickle of the scripted module, an object of attributes for every submodule, and
data/0, data/1, ... are the bytes of the tensors' storages.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_STORAGES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
        "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
        "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
    }.items()
}  # fmt: skip


def is_torchscript(path: Path) -> bool:
    """Whether the file is such an archive; torch's other files are zip files too."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of the scripted module by their names in its state dict.

    Raises:
        pickle.UnpicklingError: it holds something else than modules, tensors and plain values.
    """
    with zipfile.ZipFile(path) as archive:
        return _tensors(_Reader(archive).load(), "")


class _Object:
    """A scripted object, of which only the attributes are read."""

    def __init__(self, *_: object):
        self.attributes: object = {}

    def __setstate__(self, state: object) -> None:
        self.attributes = state


def _rebuilt(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: object) -> Tensor:
    return storage.as_strided(size, stride, offset).clone()  # refuses what lies outside of the storage


def _first(value: object, *_: object) -> object:
    return value


_KNOWN: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("collections", "OrderedDict"): OrderedDict,
    ("torch.jit._pickle", "restore_type_tag"): _first,
    **{("torch.jit._pickle", f"build_{kind}list"): _first for kind in ("int", "double", "bool", "tensor")},
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
}


class _Reader(pickle.Unpickler):
    """Knows no class and no function but those above: nothing that an archive brings along is ever called."""

    def __init__(self, archive: zipfile.ZipFile):
        self.archive = archive
        self.folder = next(name for name in archive.namelist() if name.endswith("/constants.pkl")).partition("/")[0]
        super().__init__(io.BytesIO(archive.read(f"{self.folder}/data.pkl")))

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "__torch__":
            return _Object
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return _KNOWN[module, name]

    def persistent_load(self, saved: Any) -> Tensor:
        _, dtype, key, _, count = saved  # "storage", its type, its file, the device that it was on, its length
        content = bytearray(self.archive.read(f"{self.folder}/data/{key}"))
        return torch.frombuffer(content, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)


def _tensors(module: object, prefix: str) -> dict[str, Tensor]:
    found = {}
    attributes = module.attributes if isinstance(module, _Object) else None
    for name, value in attributes.items() if isinstance(attributes, dict) else ():
        if isinstance(value, Tensor):
            found[f"{prefix}{name}"] = value
        else:
            found |= _tensors(value, f"{prefix}{name}.")
    return found

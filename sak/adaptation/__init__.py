"""Ways to use a frozen backbone: what is named here is loaded when it is asked for."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from teachers.s2 import S2

__all__ = ["S2"]

_HOMES = {"S2": "teachers.s2"}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sak.adaptation' has no attribute {name!r}")

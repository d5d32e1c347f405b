"""Ways to use a frozen backbone: what is named here is loaded when it is asked for."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sak.adaptation.adapted import Adapted
    from sak.adaptation.losa import LoSA
    from teachers.s2 import S2

__all__ = ["S2", "Adapted", "LoSA"]

_HOMES = {"Adapted": "sak.adaptation.adapted", "LoSA": "sak.adaptation.losa", "S2": "teachers.s2"}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sak.adaptation' has no attribute {name!r}")

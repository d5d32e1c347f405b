"""Distil several frozen vision foundation models into one multi-task student that keeps their strengths apart.

What is named here is loaded when it is asked for: `import sak` alone loads neither torch nor timm.
"""

import importlib
from typing import TYPE_CHECKING

from sak import shadowed

if TYPE_CHECKING:
    from sak.bundles.official import load_official
    from sak.student import Student, StudentOutput

__all__ = ["Student", "StudentOutput", "load_official"]

__version__ = "0.1.0"

_HOMES = {"Student": "sak.student", "StudentOutput": "sak.student", "load_official": "sak.bundles.official"}

shadowed.watch("teachers")


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sak' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]

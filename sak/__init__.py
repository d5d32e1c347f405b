"""Distil several frozen vision foundation models into one multi-task student that keeps their strengths apart.

What is named here is loaded when it is asked for: `import sak` alone loads neither torch nor timm.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from sak.errors import UserError

if TYPE_CHECKING:
    from sak.bundles.official import load_official
    from sak.deploy.predictor import Predictor
    from sak.student import Student, StudentOutput

__all__ = ["Predictor", "Student", "StudentOutput", "load_official"]

__version__ = "0.1.0"

_HOMES = {
    "Predictor": "sak.deploy.predictor",
    "Student": "sak.student",
    "StudentOutput": "sak.student",
    "load_official": "sak.bundles.official",
}

# A package of the user's that hides ours, `teachers`, is named where an import from it fails. Python finds first what
# lies beside the program, and "No module named 'teachers.base'" would be all that it says.
BESIDE = Path(__file__).parents[1]  # where our packages lie, installed or in a checkout


class ShadowedError(UserError, ImportError):
    pass


class _Watch:
    """Is asked before all other finders of `sys.meta_path`, and finds nothing; it only refuses.

    Args:
        package: at our top level.
    """

    def __init__(self, package: str):
        self.package = package

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> None:
        """
        Raises:
            ShadowedError: it is a module of ours in a package that is not, and has no such module.
        """
        if not name.startswith(f"{self.package}.") or path is None:
            return
        ours = BESIDE.joinpath(*name.split("."))
        there = (ours / "__init__.py").is_file() or ours.with_suffix(".py").is_file()
        if there and str(ours.parent) not in path and PathFinder.find_spec(name, path) is None:
            hiding = sys.modules[name.rpartition(".")[0]]
            raise ShadowedError(
                f"{hiding.__file__ or next(iter(path))} hides the package {self.package} of sak, which has a module "
                f"{name}: rename yours, start your program elsewhere, or put {BESIDE} first on PYTHONPATH"
            )


sys.meta_path.insert(0, _Watch("teachers"))


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sak' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]

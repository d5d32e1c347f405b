"""A package of the user's that hides one of ours is named where the import fails.

`teachers` lies at the top level, beside `sak`. Where a program of the user's lies beside a package of the same name,
Python finds that first, and what we import from it is not there: "No module named 'teachers.base'" is all that is said.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from sak.errors import UserError

BESIDE = Path(__file__).parents[1]  # where our packages lie, installed or in a checkout


class ShadowedError(UserError, ImportError):
    pass


class Watch:
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


def watch(package: str) -> None:
    """From here on, say what hides a package at our top level."""
    if not any(isinstance(finder, Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, Watch(package))

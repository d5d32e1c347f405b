"""Libraries that only some commands need."""

import importlib

from sak.errors import UserError


def require(extra: str, *libraries: str) -> None:
    """
    Raises:
        UserError: one of the libraries is not installed; the extra of this package that brings it is named.
    """
    for library in libraries:
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise UserError(f"this needs {library}, which is not installed: pip install 'sak[{extra}]'") from error

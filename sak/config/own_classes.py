"""Classes of one's own, which a config names as ``package.module:Class``."""

import importlib


class NoSuchModule(LookupError):
    """Its text is the module that is not there."""


class NoSuchName(LookupError):
    """The module is there, but not the name in it; or the entry is not of that form."""


def attribute_of(entry: str) -> object:
    """What "package.module:Name" names.

    Raises:
        NoSuchModule, NoSuchName: it is not there. A mistake inside the module is raised as it is.
    """
    module, _, name = entry.partition(":")
    if not (module and name):
        raise NoSuchName(entry)
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, but something that it imports is not
        raise NoSuchModule(error.name) from error
    except (AttributeError, TypeError) as error:  # of a module whose name begins with a point, too
        raise NoSuchName(entry) from error

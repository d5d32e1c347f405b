"""Students on disk and on the Hugging Face hub: config.json and model.safetensors, written and read with care.

A reader must be able to trust what it got: config.json has a number for its form, and what a newer sak has written, or
anybody else, is refused instead of being taken for the nearest thing that is understood.
"""

import contextlib
import inspect
import os
import re
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from huggingface_hub import PyTorchModelHubMixin, constants
from huggingface_hub.errors import LocalEntryNotFoundError

FORMAT = 2  # of config.json: with descriptions of the tasks
READABLE = (1, FORMAT)  # bundles without a number are of the first
FORMAT_KEY = "format"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
LONGEST = 300  # characters of a library's own words
PATIENCE = 3  # seconds for the hub to answer


class BundleError(ValueError, RuntimeError):
    """A bundle that cannot be had or trusted: one sentence that says which one, why, and what to do.

    A RuntimeError too, as torch's own over weights that do not fit, which callers may be waiting for.
    """


class BundleFiles(PyTorchModelHubMixin):
    """What a model saves are its arguments and its weights; only both together are read again."""

    _hub_mixin_config: dict  # type: ignore[assignment]  # the arguments, which the mixin notes

    @property
    def descriptions(self) -> dict[str, dict[str, Any]]:
        """{task: the kind of its labels, names and colours of classes, ...}; {} of an older bundle, which has none."""
        return dict(self._hub_mixin_config["descriptions"] or {})

    def save_pretrained(self, save_directory: str | Path, *, config: Any = None, **options: Any) -> str | None:
        """Write config.json and model.safetensors; see ``PyTorchModelHubMixin``."""
        settings = {FORMAT_KEY: FORMAT, **cast(dict, config or self._hub_mixin_config)}
        return super().save_pretrained(save_directory, config=settings, **options)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any):  # type: ignore[override]
        """The model of a directory with config.json and model.safetensors, or of an id on the hub, as in user/name.

        Without a connection, what is in the hub's cache counts.

        Args:
            options: of ``PyTorchModelHubMixin``, as ``revision`` and ``cache_dir``.

        Raises:
            BundleError: there is none, it is corrupt, or a newer sak has written it.
        """
        source = str(pretrained_model_name_or_path)
        if os.path.isdir(source):
            for name in (CONFIG, WEIGHTS):
                _check_readable(source, name)
        elif os.path.exists(source) or not HUB_ID.fullmatch(source):
            raise BundleError(f"{source} is no bundle: give a directory with {CONFIG}, or an id on the hub: user/name")
        try:
            with contextlib.nullcontext() if os.path.isdir(source) else asked_only_if_reachable():
                return super().from_pretrained(source, **options)
        except BundleError as error:
            raise BundleError(f"{source} {error}") from error.__cause__
        except Exception as error:  # json, torch, safetensors and the hub's client have their own errors
            raise BundleError(f"{source} {_unreadable(_words(error), os.path.isdir(source))}") from error

    @classmethod
    def _from_pretrained(cls, *, config: Any = None, **arguments: Any):  # type: ignore[override]
        """The mixin's, with the whole config.json, and strict: its default leaves lacking weights at random."""
        if config is None:  # only of the hub: the mixin takes it for one without settings
            raise BundleError(_unreadable(f"there is no {CONFIG} that you may read", here=False))
        if not isinstance(config, dict):
            raise BundleError(_unreadable(f"its {CONFIG} holds no JSON object", here=True))
        if config.get("kind") == "vocabulary":
            raise BundleError("holds a model that reads, and no student: tools/read.py is for it")
        version = config.get(FORMAT_KEY, READABLE[0])
        if version not in READABLE:
            known = " and ".join(map(str, READABLE))
            raise BundleError(f"has been written by a newer sak (format {version!r}, known: {known}): update sak")
        if strangers := sorted(config.keys() - inspect.signature(cls.__init__).parameters.keys() - {FORMAT_KEY}):
            raise BundleError(f"is no bundle of this sak: its {CONFIG} has the unknown key {strangers[0]!r}")
        return super()._from_pretrained(**{**arguments, "strict": True})


@contextlib.contextmanager
def asked_only_if_reachable() -> Iterator[None]:
    """Without a connection, make the hub's client look into its cache alone: it would try for half a minute."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not reachable()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def reachable() -> bool:
    """Whether the hub can be asked."""
    if constants.HF_HUB_OFFLINE:
        return False
    if urllib.request.getproxies():
        return True  # who answers is seen only through them
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname, port), timeout=PATIENCE).close()
    except OSError:
        return False
    return True


def _check_readable(source: str, name: str) -> None:
    """safetensors would say of every file that cannot be opened that there is none."""
    try:
        open(os.path.join(source, name), "rb").close()
    except FileNotFoundError:
        raise BundleError(f"{source} is no bundle: it has no {name}; give a directory that holds both") from None
    except OSError as error:
        raise BundleError(f"{source} {_unreadable(f'{name}: {error.strerror}', here=True)}") from error


def _unreadable(reason: str, here: bool) -> str:
    elsewhere = "" if here else "does not exist here, and from the hub "
    return f"{elsewhere}cannot be read as a bundle ({reason})"


def _words(error: Exception) -> str:
    """What a library says, as far as it helps."""
    if isinstance(error, LocalEntryNotFoundError):
        return "the hub cannot be reached, and it is not in its cache"
    return " ".join(line.strip() for line in str(error).splitlines()[:2])[:LONGEST] or type(error).__name__

"""The typed configuration of an experiment: defaults < file (and what it extends) < command line.

Every mistake is one sentence that names the key, the file and, where there is one, the nearest known key.
"""

import copy
import dataclasses
import difflib
import os
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sak.config.checks import check
from sak.config.schema import Config, change, plain, trained_beside
from sak.errors import UserError
from sak.files import write_text

# Short names on the command line.
ALIASES = {"from": "student.weights"}


def load(path: str | os.PathLike, overrides: Sequence[str] = ()) -> DictConfig:
    """Read a YAML config, what it ``extends``, and ``key=value`` overrides into a checked Config.

    A teacher that is set to null is taken out again: ``teachers.sam=null``; so is a model of ``probe.extra``. On the
    command line, ``from=RUN`` is short for ``student.weights=RUN``.

    Raises:
        UserError: a file is missing or no YAML, a key is unknown, a value has the wrong type, or a key has no value.
    """
    config = OmegaConf.structured(Config)
    for file in _chain(Path(path)):
        content = _read(file)
        content.pop("extends", None)
        config = _merge(config, content, str(file))
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or not key:
            raise UserError(f"override {override!r} on the command line is not of the form key=value")
        if key in ALIASES:
            override = ALIASES[key] + override.removeprefix(key)
        try:
            content = plain(OmegaConf.from_dotlist([override]))
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            raise UserError(f"override {override!r} on the command line cannot be read: {_first_line(error)}") from None
        config = _merge(config, content, "the command line")
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"{missing[0]} has no value; set it in {path} or on the command line")
    try:
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {_first_line(error)}") from None
    check(config, str(path))
    if (changed := change(config)) and changed[0] == "remove":
        # Nothing is left to distil, and without routers or heads nothing to train.
        config.stages.distill.steps = 0
        if not trained_beside(config):
            config.stages.multitask.steps = 0
    return config


def save(config: DictConfig, path: str | os.PathLike) -> None:
    write_text(path, OmegaConf.to_yaml(config))


def differences(one: DictConfig, other: DictConfig) -> list[str]:
    """The dotted keys whose values differ."""
    flat_one, flat_other = _flat(plain(one)), _flat(plain(other))
    return sorted(key for key in flat_one.keys() | flat_other.keys() if flat_one.get(key) != flat_other.get(key))


def _chain(path: Path) -> list[Path]:
    """The file and all that it extends, the remotest ancestor first."""
    chain: list[Path] = []
    parent: str | None = str(path)
    while parent is not None:
        file = Path(parent) if not chain else chain[-1].parent / parent
        if file in chain:
            raise UserError(f"{file} extends itself through {' -> '.join(map(str, chain[chain.index(file) :]))}")
        if not file.is_file():
            named_by = f", which {chain[-1]} extends" if chain else ""
            raise UserError(f"no config file at {file}{named_by}")
        chain.append(file)
        parent = _read(file).get("extends")
        if parent is not None and not isinstance(parent, str):
            raise UserError(f"{file}: extends must be the path of one file, not {parent!r}")
    return chain[::-1]


def _read(path: Path) -> dict[Any, Any]:
    try:
        # OmegaConf's reader, unlike YAML 1.1, knows that 1e-3 is a number.
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path} is not a readable YAML file: {_first_line(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold keys and values, not a {type(content).__name__}")
    return content


def _merge(config: DictConfig, content: dict[str, Any], where: str) -> DictConfig:
    _check_keys(content, Config, "", where)
    content = _without_nulls(config, content, where)
    try:
        return cast(DictConfig, OmegaConf.merge(config, content))
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {error.full_key}: {_first_line(error)}") from None


def _without_nulls(config: DictConfig, content: dict[str, Any], where: str) -> dict[str, Any]:
    """Take the teachers and the extra models of the probe that ``content`` sets to null out of both."""
    content = copy.deepcopy(content)
    probe = content.get("probe")
    for title, present, given in (
        ("teacher", config.teachers, content.get("teachers")),
        ("extra model", config.probe.extra, probe.get("extra") if isinstance(probe, dict) else None),
    ):
        if not isinstance(given, dict):
            continue
        for name in [name for name, spec in given.items() if spec is None]:
            if name not in present:
                known = ", ".join(present) or "none"
                raise UserError(f"{where}: there is no {title} {name} to take out; the {title}s are: {known}")
            present.pop(name)
            given.pop(name)
    return content


def _check_keys(content: Any, schema: Any, prefix: str, where: str) -> None:
    """Compare keys with the schema, dataclass by dataclass, to name a wrong one and its nearest relative."""
    if not isinstance(content, dict):
        return
    if not dataclasses.is_dataclass(schema):
        # dict[str, X]: any key goes, its value is an X.
        if typing.get_origin(schema) is dict:
            for key, value in content.items():
                _check_keys(value, typing.get_args(schema)[1], f"{prefix}{key}.", where)
        return
    known = {f.name: f.type for f in dataclasses.fields(schema)}
    for key, value in content.items():
        if key not in known:
            nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
            raise UserError(f"{where}: unknown key {prefix}{key}; the nearest known key is {prefix}{nearest}")
        _check_keys(value, known[key], f"{prefix}{key}.", where)


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, dict) or not content:
        return {prefix.removesuffix("."): content}
    return {key: value for name, inner in content.items() for key, value in _flat(inner, f"{prefix}{name}.").items()}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]

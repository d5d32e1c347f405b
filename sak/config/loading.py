"""The typed configuration of an experiment: defaults < file (and what it extends) < command line.

Every mistake is one sentence that names the key, the file and, where there is one, the nearest known key.
"""

import copy
import difflib
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MappingNode

from sak.config import reading
from sak.config.checks import check
from sak.config.derived import change, left_out, trained_beside
from sak.config.schema import LOCATIONS, STAGES, Config, plain
from sak.config.tuning import tune
from sak.errors import SHOWN, UserError
from sak.files import shipped, write_text

NO_DATASET = "none"  # what data.dataset is where neither labels nor images of one are asked for, and the like

# Short names on the command line.
ALIASES = {"from": "student.weights"}


def load(path: str | os.PathLike, overrides: Sequence[str] = ()) -> DictConfig:
    """Read a YAML config (``find`` says which), what it ``extends``, and ``key=value`` overrides into a checked Config.

    A teacher that is set to null is taken out again: ``teachers.sam=null``; so is a model of ``probe.extra``. On the
    command line, ``from=RUN`` is short for ``student.weights=RUN``; see `sak.config.tuning` for what follows from it.

    Raises:
        UserError: a file is missing or no YAML, a key is unknown, a value has the wrong type, or a key has no value.
    """
    config = copy.deepcopy(_defaults())
    for file, node in _chain(os.fspath(path)):
        config = _merge(config, reading.content_of_file(node, file), str(file))
    given = set()
    for override in overrides:
        key, _, _ = override.partition("=")
        given.add(ALIASES.get(key, key))
        if key in ALIASES:
            override = ALIASES[key] + override.removeprefix(key)
        config = _merge(config, reading.content_of_override(override), reading.COMMAND_LINE)
    if not left_out(config.stages.vocabulary):
        _leave_out_student(config)
    elif not OmegaConf.is_missing(config.data, "tasks") and not config.data.tasks:
        _leave_out_labels(config, str(path))
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {error.full_key}: {_first_line(error)}") from None
    if missing:
        raise UserError(f"{missing[0]} has no value; set it in {path} or on the command line")
    if config.precision == "no":  # its name until it was found that YAML takes it for a truth value
        config.precision = "fp32"
    for key in LOCATIONS:
        if OmegaConf.select(config, key) is not None:
            OmegaConf.update(config, key, os.path.expanduser(OmegaConf.select(config, key)))
    distill = config.stages.distill
    if distill.images is None and config.data.dataset == "mini_context" and config.data.renderer.unlabelled:
        distill.images = os.path.join(config.data.root, "unlabelled", "images.tar")
    tune(config, given)
    check(config, f"{path} with the command line" if overrides else str(path))
    if (changed := change(config)) and changed[0] == "remove":
        # Nothing is left to distil, and without routers or heads nothing to train.
        config.stages.distill.steps = 0
        if not trained_beside(config):
            config.stages.multitask.steps = 0
    return config


@functools.cache
def _defaults() -> DictConfig:
    """To be copied, which takes a sixth of the time of making it from the classes."""
    return OmegaConf.structured(Config)


def find(name: str | os.PathLike) -> Path | None:
    """The config that a path stands for, or the name of one that comes with sak, as ``sak_pascal``; None: neither."""
    return Path(name) if Path(name).is_file() else _named().get(os.fspath(name))


def _leave_out_labels(config: DictConfig, where: str) -> None:
    """Without tasks there is no second stage, and nobody need say on what, or how, it would train.

    Raises:
        UserError: there are no images either.
    """
    distill, multitask = config.stages.distill, config.stages.multitask
    multitask.steps = 0
    _take_over(multitask, distill)
    if OmegaConf.is_missing(config.data, "dataset"):
        if distill.images is None:
            raise UserError(
                f"{where}: data.tasks is empty, and stages.distill.images is null: set it to a folder of images, to "
                "tars, or set data.dataset and data.root"
            )
        config.data.dataset = NO_DATASET
        config.data.root = distill.images


def _leave_out_student(config: DictConfig) -> None:
    """A vocabulary is trained without one, and nobody need say what it would be, or be trained on."""
    for stage in STAGES:
        config.stages[stage].steps = 0
        _take_over(config.stages[stage], config.stages.vocabulary)
    for part, key, value in (
        (config.data, "dataset", NO_DATASET),
        (config.data, "root", NO_DATASET),
        (config.data, "image_size", [config.vocabulary.data.image_size] * 2),
        (config.data, "tasks", []),
        (config.student, "stem", NO_DATASET),
    ):
        if OmegaConf.is_missing(part, key):
            part[key] = value


def _take_over(stage: DictConfig, other: DictConfig) -> None:
    """What must be said of every stage is taken from another one where it is missing of one that is left out."""
    for mine, part, keys in (
        (stage, other, ("batch_size",)),
        (stage.optim, other.optim, ("lr", "weight_decay", "schedule")),
    ):
        for key in keys:
            if OmegaConf.is_missing(mine, key) and not OmegaConf.is_missing(part, key):
                mine[key] = part[key]


def save(config: DictConfig, path: str | os.PathLike) -> None:
    write_text(path, OmegaConf.to_yaml(config))


def differences(one: DictConfig, other: DictConfig) -> list[str]:
    """The dotted keys whose values differ."""
    flat_one, flat_other = _flat(plain(one)), _flat(plain(other))
    return sorted(key for key in flat_one.keys() | flat_other.keys() if flat_one.get(key) != flat_other.get(key))


def _named() -> dict[str, Path]:
    """{name: file} of the configs that come with sak: ``baselines/sum`` for ``configs/baselines/sum.yaml``."""
    folder = shipped("configs")
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(folder.rglob("*.yaml"))}


def _chain(path: str) -> list[tuple[Path, MappingNode]]:
    """The file and all that it extends, the remotest ancestor first, each as its keys and values."""
    chain: list[tuple[Path, MappingNode]] = []
    met: list[Path] = []  # as the file system knows them, whatever way leads there
    parent: str | None = path
    while parent is not None:
        place = chain[-1][0].parent / parent if chain else Path(parent)
        file = place if place.is_file() else _named().get(parent)
        if file is None:
            named_by = f", which {chain[-1][0]} extends" if chain else ""
            nearest = difflib.get_close_matches(Path(parent).stem[:SHOWN], _named(), n=1)
            advice = f"; of those that come with sak the nearest is {nearest[0]}" if nearest else ""
            raise UserError(f"no config file at {place}{named_by}{advice}")
        if file.resolve() in met:
            through = [*(str(known) for known, _ in chain[met.index(file.resolve()) :]), str(file)]
            raise UserError(f"{file} extends itself through {' -> '.join(through)}")
        met.append(file.resolve())
        node = reading.read_file(file)
        parent = reading.extended(node, file)
        chain.append((file, node))
    return chain[::-1]


def _merge(config: DictConfig, content: dict[str, Any], where: str) -> DictConfig:
    """Into the config itself: a copy for each override would take half of the time of reading a config."""
    content = _without_nulls(config, content, where)
    try:
        return cast(DictConfig, OmegaConf.unsafe_merge(config, content))
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


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, dict) or not content:
        return {prefix.removesuffix("."): content}
    return {key: value for name, inner in content.items() for key, value in _flat(inner, f"{prefix}{name}.").items()}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]

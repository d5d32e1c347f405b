"""Frozen vision foundation models: one file is one family, and `build` imports it when it is asked for."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sak.config.own_classes import NoSuchModule, NoSuchName, attribute_of
from sak.errors import UserError
from teachers.base import Teacher, TeacherSpec, drawing, unknown
from teachers.committee import Committee
from teachers.multiscale import MultiScale

__all__ = ["FAMILIES", "Committee", "MultiScale", "Teacher", "TeacherSpec", "build"]

FAMILIES = {
    "dinov2": "teachers.dinov2:DINOv2",
    "clip": "teachers.clip:CLIP",
    "sam": "teachers.sam:SAM",
    "timm": "teachers.timm_models:Timm",
    "vocabulary": "teachers.vocabulary:Vocabulary",
}


def build(name: str, spec: TeacherSpec | Mapping[str, Any]) -> Teacher | MultiScale:
    """Build the teacher that `spec` (a TeacherSpec, or a mapping of its fields) describes.

    What it draws at random depends on its name alone; random numbers that others draw do not depend on it.

    Raises:
        UserError: the family, the architecture, an option, a level or the weights do not exist or do not fit.
    """
    try:
        spec = cast(TeacherSpec, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TeacherSpec), spec)))
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise UserError(f"teacher {name}: {key}{str(error).splitlines()[0]}") from error
    family = _family(name, spec.family)
    with drawing(name):
        teacher = family(name, spec)
    return teacher if spec.scales == [1] else MultiScale(teacher, spec.scales, spec.resize_to)


def _family(name: str, family: str) -> Callable[[str, TeacherSpec], Teacher]:
    if family not in FAMILIES and ":" not in family:
        raise UserError(f"teacher {name}: {unknown('family', family, FAMILIES)}")
    entry = FAMILIES.get(family, family)
    module, _, attribute = entry.partition(":")
    try:
        found = attribute_of(entry)
    except NoSuchModule as error:
        raise UserError(
            f"teacher {name}: there is no module {error} for family {family}; install it or put its folder on "
            "PYTHONPATH."
        ) from error
    except NoSuchName as error:
        if not (module and attribute):
            raise UserError(
                f"teacher {name}: family is {family!r}, but must be package.module:Class for a class of your own"
            ) from error
        raise UserError(f"teacher {name}: module {module} has no {attribute}; family is {family}.") from error
    if not (isinstance(found, type) and issubclass(found, Teacher)):
        raise UserError(f"teacher {name}: {family} is not a subclass of teachers.Teacher.")
    return found

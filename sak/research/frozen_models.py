"""The frozen models that a config names for probing and comparing."""

import dataclasses
from collections.abc import Mapping

from omegaconf import DictConfig

import teachers
from sak.bundles.build import check_model_names
from sak.config.schema import teacher_spec

S2 = "-s2"  # ends the name of a model's S2 variant


def models_to_probe(config: DictConfig) -> dict[str, teachers.TeacherSpec]:
    """{name: specification}: the teachers, the extra models, and the S2 variants of those that see one scale."""
    plain = {name: teacher_spec(spec) for name, spec in {**config.teachers, **config.probe.extra}.items()}
    if config.probe.scales is None:
        return plain
    scales = list(config.probe.scales)
    multiscale = {
        f"{name}{S2}": dataclasses.replace(spec, scales=scales) for name, spec in plain.items() if spec.scales == [1]
    }
    return {**plain, **multiscale}


def build_models(specs: Mapping[str, teachers.TeacherSpec]) -> dict[str, teachers.Teacher | teachers.MultiScale]:
    """Of the specifications; an S2 variant is built under the name of its model, so that an untrained one is that."""
    check_model_names(specs)
    models = {}
    for name, spec in specs.items():
        model = name.removesuffix(S2)
        models[name] = teachers.build(model if model in specs else name, spec)
    return models

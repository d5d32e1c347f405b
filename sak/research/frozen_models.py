"""The frozen models that a config names for probing and comparing."""

import dataclasses
from collections.abc import Mapping

import torch
from omegaconf import DictConfig

import teachers
from sak.config.schema import teacher_spec


def models_to_probe(config: DictConfig) -> dict[str, teachers.TeacherSpec]:
    """{name: specification}: the teachers, the extra models, and the S2 variants of those that see one scale."""
    plain = {name: teacher_spec(spec) for name, spec in {**config.teachers, **config.probe.extra}.items()}
    if config.probe.scales is None:
        return plain
    scales = list(config.probe.scales)
    multiscale = {
        f"{name}-s2": dataclasses.replace(spec, scales=scales) for name, spec in plain.items() if spec.scales == [1]
    }
    return {**plain, **multiscale}


def build_models(
    specs: Mapping[str, teachers.TeacherSpec], seed: int
) -> dict[str, teachers.Teacher | teachers.MultiScale]:
    """Of the specifications; an untrained one has the weights of the seed, whatever stands before it."""
    models = {}
    for name, spec in specs.items():
        torch.manual_seed(seed)
        models[name] = teachers.build(name, spec)
    return models

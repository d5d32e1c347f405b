"""A frozen or fine-tuned backbone with heads, from a config."""

import dataclasses
from collections.abc import Mapping

from omegaconf import DictConfig

from sak.adaptation import Adapted
from sak.bundles.tasks import records
from sak.config.derived import image_size, model_spec
from sak.errors import UserError
from sak.tasks import Task


def build_adapted(config: DictConfig, tasks: Mapping[str, Task], heads: Mapping[str, dict]) -> Adapted:
    """What ``stages.multitask.method`` makes of ``adaptation.backbone``, for images of the second stage.

    Args:
        heads: {task: type and options of its head}.

    Raises:
        UserError: the backbone cannot be had, or the parts of the config do not fit together.
    """
    name, method = config.adaptation.backbone, config.stages.multitask.method
    try:
        return Adapted(
            {"name": name, "spec": dataclasses.asdict(model_spec(config, name)), "sha256": None},
            method,
            image_size=list(image_size(config, "multitask")),
            tasks={task.name: task.channels for task in tasks.values()},
            rank=config.adaptation.rank,
            levels=list(config.teachers[name].levels),
            heads=heads,
            descriptions=records(tasks),
        )
    except UserError as error:
        raise UserError(f"stages.multitask.method={method}: {error}") from error
    except ValueError as error:  # of a head
        raise UserError(f"student: {error}") from error


def describe_adapted(student: Adapted) -> str:
    """How its training starts."""
    counts = {True: 0, False: 0}
    for weight in student.stem.parameters():
        counts[weight.requires_grad] += weight.numel()
    return (
        f"the backbone {student.backbone.name} ({student.backbone.report or 'as it was built'}); {student.method}: "
        f"{counts[True]:,} weights learn in it or beside it, {counts[False]:,} are frozen; heads from random weights"
    )

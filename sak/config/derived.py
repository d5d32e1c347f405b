"""What a config asks for by several keys at once: stages, steps, sizes, and the teachers that take part."""

import dataclasses

from omegaconf import DictConfig

from sak.config.schema import FROZEN, STAGES, TeacherSpec, teacher_spec

CHANGES = ("add", "update", "remove")  # of a teacher of a trained student


def change(config: DictConfig) -> tuple[str, str] | None:
    """(add, update or remove; the teacher), if the config changes a trained student."""
    asked = {what: config.student[f"{what}_teacher"] for what in CHANGES}
    return next(((what, teacher) for what, teacher in asked.items() if teacher is not None), None)


def taught_by(config: DictConfig) -> list[str]:
    """The teachers that a training asks."""
    if config.stages.multitask.method is not None:
        return []
    if (changed := change(config)) is None:
        return list(config.teachers)
    what, teacher = changed
    return [] if what == "remove" else [teacher]


def frozen_backbone(config: DictConfig) -> str | None:
    """The teacher that a training reads as a frozen backbone."""
    return config.adaptation.backbone if config.stages.multitask.method in FROZEN else None


def model_spec(config: DictConfig, name: str) -> TeacherSpec:
    """That of a teacher; of a backbone, with the blocks that are read of it as its levels."""
    spec, taps = teacher_spec(config.teachers[name]), config.adaptation.taps
    if name == frozen_backbone(config) and taps is not None:
        return dataclasses.replace(spec, levels=list(taps))
    return spec


def asks(config: DictConfig, stage: str) -> list[str]:
    """The frozen models whose features of its training images a stage reads."""
    if distils(config, stage):
        return taught_by(config)
    backbone = frozen_backbone(config)
    return [backbone] if backbone and stage == "multitask" and not left_out(config.stages.multitask) else []


def trained_beside(config: DictConfig) -> list[str]:
    """Of routers and heads, those that learn where a trained student is changed."""
    chosen = config.student.trained_beside
    if chosen is None:
        changed = change(config)
        return ["routers", "heads"] if changed and changed[0] == "add" else []
    return list(chosen)


def left_out(stage: DictConfig) -> bool:
    """Whether the config skips this stage."""
    return stage.steps == 0


def unlabelled(config: DictConfig) -> bool:
    """Whether images without labels are all that the config has; else there is a data set, with tasks or without."""
    return not config.data.tasks and config.stages.distill.images is not None


def active_stages(config: DictConfig) -> list[str]:
    """Those that the config does not skip, in their order."""
    return [stage for stage in STAGES if not left_out(config.stages[stage])]


def distils(config: DictConfig, stage: str) -> bool:
    """Whether the stage takes part, and its loss has a distillation part."""
    if left_out(config.stages[stage]) or not taught_by(config):
        return False
    return stage == "distill" or config.stages.multitask.alpha != 0


def number_of_steps(stage: DictConfig, images: int) -> int:
    """Of a whole stage that trains on so many images; they do not matter where ``steps`` is given."""
    if left_out(stage):
        return 0
    return stage.epochs * (images // stage.batch_size) if stage.steps is None else stage.steps


def evaluation_batch(config: DictConfig, processes: int = 1) -> int:
    """Images of one forward pass of an evaluation on one device, where so many processes share the training's batch."""
    multitask = config.stages.multitask
    return config.evaluation.batch_size or max(1, multitask.batch_size // (multitask.accumulate * processes))


def image_size(config: DictConfig, stage: str) -> tuple[int, int]:
    """(H, W) of a stage's training images."""
    own = config.stages.distill.image_size if stage == "distill" else None
    height, width = own or config.data.image_size
    return height, width

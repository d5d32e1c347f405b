"""What the types of the schema cannot say of a config: ranges, choices, and keys that must fit each other."""

from collections.abc import Callable

from omegaconf import DictConfig, OmegaConf

from sak.config.schema import CHANGES, LOSSES, STANDARDISATIONS, TASK_BALANCES, change, left_out, trained_beside
from sak.errors import UserError

Require = Callable[[bool, str, str], None]  # a condition, the key that breaks it, what its value must be


def check(config: DictConfig, where: str) -> None:
    """
    Args:
        where: the config is from, for the message.

    Raises:
        UserError: a value breaks a rule; the first one is named.
    """

    def require(condition: bool, key: str, rule: str) -> None:
        if not condition:
            value = OmegaConf.select(config, key)
            raise UserError(f"{where}: {key} is {value!r}, but must be {rule}")

    require(bool(config.name) and "/" not in config.name, "name", "the name of a directory")
    _check_data(config, require)
    _check_computation(config, require)
    _check_change(config, where)
    for name in config.stages:
        _check_stage(config.stages[name], f"stages.{name}", require, where)
    _check_multitask(config, require)
    require(
        config.evaluation.batch_size is None or config.evaluation.batch_size > 0, "evaluation.batch_size", "positive"
    )
    _check_cache(config, require)
    _check_probe(config, require, where)


def _check_data(config: DictConfig, require: Require) -> None:
    for key in ("data.image_size", "stages.distill.image_size"):
        if (size := OmegaConf.select(config, key)) is not None:
            require(len(size) == 2, key, "[height, width]")
            require(min(size) > 0, key, "positive")
    require(len(config.data.tasks) == len(set(config.data.tasks)) > 0, "data.tasks", "a list of different tasks")
    require(config.data.timeout > 0, "data.timeout", "positive")
    require(config.data.on_error in ("stop", "skip"), "data.on_error", "stop or skip")
    require(0 <= config.data.max_skipped <= 1, "data.max_skipped", "a share between 0 and 1")
    tolerance = config.data.normals_tolerance
    require(tolerance is None or 0 < tolerance < 1, "data.normals_tolerance", "between 0 and 1, or null")


def _check_computation(config: DictConfig, require: Require) -> None:
    require(config.precision in ("no", "bf16", "fp16"), "precision", "no, bf16 or fp16")
    require(config.distributed in ("ddp", "fsdp"), "distributed", "ddp or fsdp")
    if config.distributed == "fsdp":
        require(config.precision != "fp16", "precision", "bf16 or no, as distributed is fsdp")
        require(not config.compile, "compile", "false, as distributed is fsdp")


def _check_change(config: DictConfig, where: str) -> None:
    student, changed = config.student, change(config)
    asked = [f"student.{what}_teacher" for what in CHANGES if student[f"{what}_teacher"] is not None]
    if len(asked) > 1:
        raise UserError(f"{where}: {' and '.join(asked)} are both set: change one teacher after the other, in two runs")
    if changed is None:
        for key in ("path", "trained_beside"):
            if student[key] is not None:
                raise UserError(f"{where}: student.{key} is set, but no teacher is added, updated or removed")
        return
    what, teacher = changed
    if student.weights is None:
        raise UserError(f"{where}: {asked[0]} needs the trained student that it changes: from=RUN, a run or a bundle")
    if what != "remove" and teacher not in config.teachers:
        known = ", ".join(config.teachers) or "none"
        raise UserError(f"{where}: {asked[0]} is {teacher!r}, which is not among the teachers ({known})")
    if what == "remove" and student.path is not None:
        raise UserError(f"{where}: student.path is set, but {asked[0]} needs no path")
    beside = trained_beside(config)
    if strangers := sorted(set(beside) - {"routers", "heads"}):
        raise UserError(f"{where}: student.trained_beside names {strangers[0]!r}, but can only name routers and heads")
    if what == "add" and "routers" not in beside:
        raise UserError(f"{where}: student.trained_beside must name routers, or the added path would never be mixed in")


def _check_stage(stage: DictConfig, key: str, require: Require, where: str) -> None:
    if not left_out(stage) and (stage.steps is None) == (stage.epochs is None):
        raise UserError(f"{where}: {key} needs either steps or epochs")
    if stage.optim.warmup_steps and stage.optim.warmup_epochs is not None:
        raise UserError(f"{where}: {key}.optim takes either warmup_steps or warmup_epochs")
    for positive in ("batch_size", "accumulate", "checkpoint_every", "keep_last", "log_every", "optim.lr"):
        require(OmegaConf.select(stage, positive) > 0, f"{key}.{positive}", "positive")
    require((stage.steps or 0) >= 0, f"{key}.steps", "at least 0")
    require(stage.epochs is None or stage.epochs > 0, f"{key}.epochs", "positive; steps=0 leaves the stage out")
    require(stage.optim.schedule in ("cosine", "poly"), f"{key}.optim.schedule", "cosine or poly")
    require(stage.loss in LOSSES, f"{key}.loss", f"one of {', '.join(LOSSES)}")
    require(stage.standardise in STANDARDISATIONS, f"{key}.standardise", f"one of {', '.join(STANDARDISATIONS)}")
    require(stage.standardise_images > 0, f"{key}.standardise_images", "positive")
    require(0 <= stage.teacher_dropping <= 1, f"{key}.teacher_dropping", "a probability")


def _check_multitask(config: DictConfig, require: Require) -> None:
    multitask = config.stages.multitask
    require(multitask.balance >= 0, "stages.multitask.balance", "at least 0")
    balances = ", ".join(TASK_BALANCES)
    require(multitask.task_balance in TASK_BALANCES, "stages.multitask.task_balance", f"one of {balances}")
    require(multitask.task_balance_lr > 0, "stages.multitask.task_balance_lr", "positive")
    require(multitask.gradnorm_alpha >= 0, "stages.multitask.gradnorm_alpha", "at least 0")
    if multitask.task_balance == "gradnorm":
        # Which reads gradients of single losses at a weight that is whole, before the scaled backward pass.
        require(config.distributed == "ddp", "distributed", "ddp, as stages.multitask.task_balance is gradnorm")
        require(not config.compile, "compile", "false, as stages.multitask.task_balance is gradnorm")
        require(config.precision != "fp16", "precision", "bf16 or no, as stages.multitask.task_balance is gradnorm")
    require(
        multitask.keep_best is None or bool(multitask.evaluate_every),
        "stages.multitask.evaluate_every",
        "a number of steps, as keep_best is set",
    )


def _check_cache(config: DictConfig, require: Require) -> None:
    cache = config.cache
    require(cache.views is None or cache.views > 0, "cache.views", "positive, or null for new views in each epoch")
    require(cache.path is None or cache.views is not None, "cache.views", "a number, as cache.path is set")
    require(cache.dtype in ("float16", "int8"), "cache.dtype", "float16 or int8")
    require(set(cache.stages) <= set(config.stages), "cache.stages", f"of {', '.join(config.stages)}")


def _check_probe(config: DictConfig, require: Require, where: str) -> None:
    for positive in ("steps", "batch_size", "log_every", "width", "optim.lr"):
        require(OmegaConf.select(config.probe, positive) > 0, f"probe.{positive}", "positive")
    require(config.probe.optim.schedule in ("cosine", "poly"), "probe.optim.schedule", "cosine or poly")
    models = [*config.teachers, *config.probe.extra]
    if twice := sorted(set(config.teachers) & set(config.probe.extra)):
        raise UserError(f"{where}: probe.extra.{twice[0]} has the name of a teacher; choose another one")
    require(config.probe.reference in (None, *models), "probe.reference", f"one of {', '.join(models) or 'none'}")

"""What the types of the schema cannot say of a config: ranges, choices, and keys that must fit each other."""

from collections.abc import Callable

from omegaconf import DictConfig, OmegaConf

from sak.config.derived import CHANGES, change, left_out, trained_beside
from sak.config.ranges import MODEL_NAME, NAME, rules
from sak.config.schema import LOSSES, METHODS, PRECISIONS, STAGES, STANDARDISATIONS, TASK_BALANCES, VOCABULARY
from sak.config.vocabulary import MERGES, STATISTICS
from sak.errors import UserError

Require = Callable[[bool, str, str], None]  # a condition, the key that breaks it, what its value must be

CHOICES = {
    "precision": PRECISIONS,
    "distributed": ("ddp", "fsdp"),
    "data.on_error": ("stop", "skip"),
    **{f"stages.{stage}.loss": LOSSES for stage in STAGES},
    **{f"stages.{stage}.standardise": STANDARDISATIONS for stage in STAGES},
    **{
        f"{part}.optim.schedule": ("cosine", "poly")
        for part in (*(f"stages.{stage}" for stage in (*STAGES, VOCABULARY)), "probe")
    },
    "stages.multitask.task_balance": TASK_BALANCES,
    "stages.multitask.method": (None, *METHODS),
    "cache.dtype": ("float16", "int8"),
    "vocabulary.merge": MERGES,
    "vocabulary.network.statistics": STATISTICS,
}


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

    require(NAME.holds(config.name), "name", NAME.says)
    for key, value, rule in rules(config):
        require(rule.holds(value), key, rule.says)
    for key, choices in CHOICES.items():
        names = ["null" if choice is None else choice for choice in choices]
        known = " or ".join(names) if len(names) == 2 else f"one of {', '.join(names)}"
        require(OmegaConf.select(config, key) in choices, key, known)
    for kind, models in (("teachers", config.teachers), ("probe.extra", config.probe.extra)):
        for name in models:
            if not MODEL_NAME.holds(name):
                raise UserError(f"{where}: {kind} has the name {name!r}, but it must be {MODEL_NAME.says}")
    require(len(config.data.tasks) == len(set(config.data.tasks)), "data.tasks", "a list of different tasks")
    _check_computation(config, require)
    _check_change(config, where)
    for name in config.stages:
        _check_stage(config.stages[name], f"stages.{name}", where)
    _check_multitask(config, require)
    _check_adaptation(config, require)
    _check_cache(config, require)
    _check_vocabulary(config, require)
    _check_probe(config, require, where)


def _check_computation(config: DictConfig, require: Require) -> None:
    if config.distributed == "fsdp":
        require(config.precision != "fp16", "precision", "bf16 or fp32, as distributed is fsdp")
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


def _check_stage(stage: DictConfig, key: str, where: str) -> None:
    if not left_out(stage) and (stage.steps is None) == (stage.epochs is None):
        raise UserError(f"{where}: {key} needs either steps or epochs")
    if stage.optim.warmup_steps and stage.optim.warmup_epochs is not None:
        raise UserError(f"{where}: {key}.optim takes either warmup_steps or warmup_epochs")


def _check_multitask(config: DictConfig, require: Require) -> None:
    multitask = config.stages.multitask
    if multitask.task_balance == "gradnorm":
        # Which reads gradients of single losses at a weight that is whole, before the scaled backward pass.
        require(config.distributed == "ddp", "distributed", "ddp, as stages.multitask.task_balance is gradnorm")
        require(not config.compile, "compile", "false, as stages.multitask.task_balance is gradnorm")
        require(config.precision != "fp16", "precision", "bf16 or fp32, as stages.multitask.task_balance is gradnorm")
    require(
        multitask.keep_best is None or bool(multitask.evaluate_every),
        "stages.multitask.evaluate_every",
        "a number of steps, as keep_best is set",
    )


def _check_adaptation(config: DictConfig, require: Require) -> None:
    settings, method = config.adaptation, config.stages.multitask.method
    if method is None:
        return
    why = f"as stages.multitask.method is {method}"
    known = ", ".join(config.teachers) or "none"
    require(settings.backbone in config.teachers, "adaptation.backbone", f"one of the teachers ({known}), {why}")
    require(left_out(config.stages.distill), "stages.distill.steps", f"0, {why}: there is no student to distil")
    require(config.student.weights is None, "student.weights", f"null, {why}: there is no student to start from")
    require(config.stages.multitask.balance == 0, "stages.multitask.balance", f"0, {why}: there are no routers")
    require(config.stages.multitask.task_balance != "gradnorm", "stages.multitask.task_balance", f"another, {why}")
    require(config.distributed == "ddp", "distributed", f"ddp, {why}")
    if settings.taps is not None:
        levels = list(config.teachers[settings.backbone].levels)
        require(method == "losa", "adaptation.taps", f"null, {why}: they are of losa")
        require(
            set(levels) <= set(settings.taps),
            "adaptation.taps",
            f"blocks with the backbone's levels {levels} among them",
        )


def _check_cache(config: DictConfig, require: Require) -> None:
    cache = config.cache
    require(cache.path is None or cache.views is not None, "cache.views", "a number, as cache.path is set")
    require(set(cache.stages) <= set(STAGES), "cache.stages", f"of {', '.join(STAGES)}")


def _check_vocabulary(config: DictConfig, require: Require) -> None:
    if left_out(config.stages.vocabulary):
        return
    require(config.distributed == "ddp", "distributed", "ddp, as stages.vocabulary trains no student")
    require(not config.compile, "compile", "false, as stages.vocabulary trains no student")
    settings = config.vocabulary
    branch, known = settings.branch, ", ".join(config.teachers) or "none"
    require(
        branch.teacher is None or branch.teacher in config.teachers,
        "vocabulary.branch.teacher",
        f"one of the teachers ({known})",
    )
    if settings.merge == "none":
        require(
            branch.teacher is None and branch.student is None, "vocabulary.merge", "parallel or serial with a branch"
        )
    elif settings.merge == "parallel":
        require(
            (branch.teacher is None) != (branch.student is None),
            "vocabulary.merge",
            "none unless vocabulary.branch has either a teacher or a student",
        )
    else:
        require(
            branch.teacher is not None and branch.student is None,
            "vocabulary.merge",
            "parallel or none, unless vocabulary.branch.teacher is a CLIP, which takes the vocabulary for its patches",
        )


def _check_probe(config: DictConfig, require: Require, where: str) -> None:
    models = [*config.teachers, *config.probe.extra]
    if twice := sorted(set(config.teachers) & set(config.probe.extra)):
        raise UserError(f"{where}: probe.extra.{twice[0]} has the name of a teacher; choose another one")
    require(config.probe.reference in (None, *models), "probe.reference", f"one of {', '.join(models) or 'none'}")

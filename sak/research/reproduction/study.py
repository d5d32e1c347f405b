"""The students that are compared, and what the paper claims of them ("Swiss Army Knife", arXiv 2410.14633)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from sak import config as configuration
from sak.distillation.cached_features import stage_is_cached
from sak.preflight.operations import operations
from sak.research.ablation.cost import images_of, steps_of
from sak.research.ablation.variants import CONFIG, Variant
from sak.tasks import find_task

SAK, MANY_TO_ONE, NO_TEACHERS, SINGLE_TASK = CONFIG, "many-to-one", "no-teachers", "single-task"
EQUAL_STEPS = f"{NO_TEACHERS}-equal-steps"
ONLY, FROZEN, SINGLE, LABELS = "only-", "frozen-", "single-", "labels-"  # followed by what they are of
BEST_ONLY = "best single teacher"
ROUTERS = ("equal", "sum")  # beside the config's own
SHARES = (25, 50, 75)  # percent of the labels
FEW = 3  # seeds of what is no headline


@dataclass(frozen=True)
class Claim:
    """That one student is better than another, by Δm."""

    sentence: str
    better: str
    worse: str


CLAIMS = (
    Claim("A path for each teacher (SAK) beats distilling all of them straight into one student.", SAK, MANY_TO_ONE),
    Claim("Several teachers in one student beat the best student of a single teacher.", MANY_TO_ONE, BEST_ONLY),
    Claim("The best student of a single teacher beats one without teachers at the same cost.", BEST_ONLY, NO_TEACHERS),
    Claim("SAK beats a multi-task student without teachers at the same cost.", SAK, NO_TEACHERS),
    Claim("SAK beats a multi-task student without teachers that takes as many steps.", SAK, EQUAL_STEPS),
    Claim("SAK beats students of one task each.", SAK, SINGLE_TASK),
    Claim("Routers that learn beat equal weights.", SAK, "router-equal"),
    Claim("Routers that learn beat the plain sum.", SAK, "router-sum"),
    Claim("SAK with half of the labels beats a student without teachers with all of them.", f"{LABELS}50", NO_TEACHERS),
)


def variants(path: str, overrides: Sequence[str], own: Sequence[str] = ()) -> list[Variant]:
    """All that is compared with the config itself, with as many steps in all and the same heads and crops.

    What has no teachers, and no first stage, gets all steps in the second one; of several tasks as many as cost what
    the config's training costs.

    Args:
        own: overrides of what has no teachers, as the rate at which it learns best.

    Raises:
        UserError: the config is wrong, or has no teachers.
    """
    config = configuration.load(path, overrides)
    teachers, tasks = list(config.teachers), {find_task(entry).name: entry for entry in config.data.tasks}
    steps = steps_of(config)
    total = f"stages.multitask.steps={sum(steps.values())}"
    alone = ["stages.distill.steps=0", "stages.multitask.epochs=null", "probe.reference=null"]
    alone += ["cache.path=null", "cache.views=null"]  # without teachers, new crops cost nothing
    alone += [*(f"teachers.{teacher}=null" for teacher in teachers), *own]
    matched = matched_steps(config, configuration.load(path, [*overrides, *alone, total]), steps)
    without = (*alone, f"stages.multitask.steps={matched}")

    def others(kept: str) -> list[str]:
        return [f"teachers.{teacher}=null" for teacher in teachers if teacher != kept] + ["probe.reference=null"]

    frozen = ("stages.distill.steps=0", "stages.multitask.method=linear", "stages.multitask.epochs=null", total)
    return [
        Variant(MANY_TO_ONE, "paths", ("student.paths=none",)),
        Variant(NO_TEACHERS, "teachers", without),
        Variant(EQUAL_STEPS, "teachers", (*alone, total), FEW),
        *(Variant(ONLY + name, "teachers", tuple(others(name)), FEW) for name in teachers),
        *(
            Variant(SINGLE + name, "tasks", (*alone, total, f"data.tasks=[{task}]"), FEW)
            for name, task in tasks.items()
        ),
        *(Variant(f"router-{name}", "router", (f"student.router={name}",), FEW) for name in ROUTERS),
        *(
            Variant(FROZEN + name, "frozen", (*frozen, *others(name), f"adaptation.backbone={name}"), FEW)
            for name in teachers
        ),
        *(
            Variant(f"{start}{LABELS}{share}", "labels", (*given, f"stages.multitask.labelled={share / 100}"), FEW)
            for start, given in (("", ()), (f"{NO_TEACHERS}-", without))
            for share in SHARES
        ),
    ]


def matched_steps(config: DictConfig, other: DictConfig, steps: Mapping[str, int]) -> int:
    """How many steps of another config's second stage cost what so many of this config's stages do."""
    return max(1, round(cost(config, steps) / cost(other, {"multitask": 1})))


def cost(config: DictConfig, steps: Mapping[str, int]) -> float:
    """Operations of so many steps of each stage; teachers whose features are kept compute those of a view once."""
    total, of_steps = 0.0, operations(config)
    for stage, count in steps.items():
        step, teachers = of_steps[stage]
        total += (step - teachers) * count
        seen = count * config.stages[stage].batch_size
        if stage_is_cached(config, stage):
            seen = min(seen, images_of(config, stage) * config.cache.views)
        total += teachers * seen / config.stages[stage].batch_size
    return total

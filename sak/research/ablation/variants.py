"""What an ablation is: variants of a config, each an ordinary training run for each seed.

A variant is a name and the overrides that make it. By default one factor is varied at a time around the config, which
is a variant too.
"""

import difflib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from sak import config as configuration
from sak.config.derived import left_out
from sak.config.ranges import NAME, SEED
from sak.config.schema import plain
from sak.errors import UserError
from sak.training.run_directory import RunDirectory

CONFIG = "config"  # the variant that is the config as it stands
TEACHERS = "teachers"  # the factor of subsets
GRID = "grid"
NONE = "none"  # the subset without teachers: the stem alone

# What has a name of its own: {factor: the keys that get each of its values}; * is every teacher.
FACTORS = {
    "router": ("student.router",),
    "adapter_ratio": ("student.adapter_ratio",),
    "loss": ("stages.distill.loss", "stages.multitask.loss"),
    "standardise": ("stages.distill.standardise", "stages.multitask.standardise"),
    "task_balance": ("stages.multitask.task_balance",),
    "scales": ("teachers.*.scales",),
}

# What each run has of its own, and what to do instead of varying it.
OWN = {
    "seed": "give the seeds with --seeds",
    "name": "each run is named by its variant and seed",
    "output": "give the ablation's directory with --output",
}


@dataclass(frozen=True)
class Variant:
    """
    Attributes:
        factor: what is varied: one of `FACTORS`, a key of the config, ``teachers``, ``grid`` or ``config``.
        overrides: key=value of the config.
        seeds: it is trained with so many of the ablation's seeds; None: with all.
    """

    name: str
    factor: str
    overrides: tuple[str, ...] = ()
    seeds: int | None = None


@dataclass
class Run:
    """One variant and seed: an ordinary run of ``sak.training.train``."""

    variant: Variant
    seed: int
    config: DictConfig
    directory: RunDirectory

    @property
    def name(self) -> str:
        return self.config.name


def parse_subsets(text: str, teachers: Sequence[str]) -> list[tuple[str, ...]]:
    """Subsets of the committee, in its order, each once.

    Args:
        text: comma-separated: ``all`` (non-empty ones), ``leave-one-out``, ``single``, ``none`` (the stem alone), and
            names joined by +, as in ``dinov2+clip``.

    Raises:
        UserError: a name is unknown, or there are no teachers.
    """
    if not teachers:
        raise UserError("the config has no teachers to take subsets of")
    kinds: dict[str, list[tuple[str, ...]]] = {
        "all": [c for size in range(len(teachers)) for c in itertools.combinations(teachers, size + 1)],
        "leave-one-out": list(itertools.combinations(teachers, len(teachers) - 1)) if len(teachers) > 1 else [],
        "single": [(teacher,) for teacher in teachers],
        NONE: [()],
    }
    subsets: list[tuple[str, ...]] = []
    for part in split_values(text, "--subsets"):
        members = part.split("+")
        unknown = [member for member in members if member not in teachers]
        if part in kinds:
            subsets += kinds[part]
        elif unknown:
            nearest = _nearest(unknown[0], [*teachers, *kinds])
            raise UserError(
                f"--subsets: {unknown[0]!r} is no teacher of the config ({', '.join(teachers)}) and none of "
                f"{', '.join(kinds)}; the nearest is {nearest}"
            )
        else:
            subsets.append(tuple(teacher for teacher in teachers if teacher in members))
    return list(dict.fromkeys(subsets))


def parse_seeds(text: str) -> list[int]:
    """
    Raises:
        UserError: one is no number that a seed can be.
    """
    parts = split_values(text, "--seeds")
    if wrong := [part for part in parts if not (part.isdecimal() and SEED.holds(int(part)))]:
        raise UserError(f"--seeds has {wrong[0]!r}, but must be numbers as in 0,1,2, each {SEED.says}")
    return [int(part) for part in parts]


def split_values(text: str, option: str) -> list[str]:
    """What stands between the commas; those within brackets are of a list: a,[b,c] -> a and [b,c].

    Raises:
        UserError: there is nothing between two of them.
    """
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "[{(") - (sign in ")}]")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    parts = [part.strip() for part in parts]
    if "" in parts:
        raise UserError(f"{option} is {text!r}, but must be values with commas between them")
    return parts


def subset_variant(subset: Sequence[str], teachers: Sequence[str]) -> Variant:
    """The config with these of its teachers; without any there is nothing to distil."""
    overrides = [f"teachers.{teacher}=null" for teacher in teachers if teacher not in subset] + ["probe.reference=null"]
    if not subset:
        overrides.append("stages.distill.steps=0")
    return Variant(subset_name(subset), TEACHERS, tuple(overrides))


def subset_name(subset: Sequence[str]) -> str:
    return "+".join(subset) or NONE


def factor_variants(factor: str, values: str, teachers: Sequence[str]) -> list[Variant]:
    """A variant for each of the comma-separated values of one of `FACTORS`, or of a key of the config."""
    if factor in OWN:
        raise UserError(f"--vary {factor}: {OWN[factor]}")
    keys = FACTORS.get(factor, (factor,))
    if "*" in keys[0]:
        keys = tuple(key.replace("*", teacher) for key in keys for teacher in teachers)
        if not keys:
            raise UserError(f"{factor} cannot be varied: there are no teachers in the config")
    parts = split_values(values, f"the list of values of {factor}")
    return [Variant(f"{factor}={v}", factor, tuple(f"{key}={v}" for key in keys)) for v in parts]


def crossed(factors: Sequence[Sequence[Variant]]) -> list[Variant]:
    """The full grid: a variant for each combination of one variant of every factor."""
    return [
        Variant(",".join(v.name for v in combined), GRID, tuple(o for v in combined for o in v.overrides))
        for combined in itertools.product(*factors)
    ]


class Ablation:
    """The runs of a config's variants and seeds, in ``<output>/runs/<variant>-seed<seed>``.

    Args:
        config: the YAML file.
        overrides: key=value of all variants.
        variants: beside the config; of those that come to the same, the first one stands for all.
        baseline: name of the variant that Δm is measured against.
        output: directory of the ablation; None: ``<output>/<name>-ablation`` of the config.

    Raises:
        UserError: a variant's config is wrong, the baseline is not among the variants, or a run's directory holds
            another experiment.
    """

    def __init__(
        self,
        config: str,
        overrides: Sequence[str],
        variants: Sequence[Variant],
        seeds: Sequence[int],
        baseline: str = CONFIG,
        output: str | None = None,
    ):
        self.config = configuration.load(config, overrides)
        if left_out(self.config.stages.multitask):
            raise UserError(f"{config}: stages.multitask.steps is 0, so that there would be no metrics to compare")
        if not seeds or len(seeds) != len(set(seeds)):
            raise UserError(f"the seeds are {', '.join(map(str, seeds)) or 'none'}, but must be different numbers")
        self.output = Path(output or Path(self.config.output) / f"{self.config.name}-ablation")
        self.seeds = list(seeds)
        self.runs: list[Run] = []
        self.variants: list[Variant] = []
        known: dict[str, str] = {}  # content of a config -> the first variant that has it
        stands_for = {subset_name(self.teachers): CONFIG}  # {name: that of the variant which is the same}
        for variant in [Variant(CONFIG, CONFIG), *dict.fromkeys(variants)]:
            loaded = configuration.load(config, [*overrides, *variant.overrides])
            if left_out(loaded.stages.multitask):
                raise UserError(f"{variant.name} leaves out the second stage, so that it has no metrics to compare")
            content = plain(loaded)
            content["probe"]["reference"] = None  # may be a teacher that is taken out, and has no part in training
            first = known.setdefault(repr(content), variant.name)
            if first != variant.name:
                stands_for[variant.name] = first
                continue
            self.variants.append(variant)
            self.runs += [self._run(variant, seed, loaded.copy()) for seed in seeds[: variant.seeds]]
        self.baseline = stands_for.get(baseline, baseline)
        if self.baseline not in (names := [variant.name for variant in self.variants]):
            raise UserError(
                f"--baseline is {baseline!r}, which is none of the variants {', '.join(names)}; "
                f"the nearest is {_nearest(baseline, names)}"
            )
        for run in self.runs:
            run.directory.check(run.config)

    def _run(self, variant: Variant, seed: int, loaded: DictConfig) -> Run:
        loaded.name = f"{variant.name.replace('/', '_')}-seed{seed}"
        if not NAME.holds(loaded.name) or loaded.name in (run.name for run in self.runs):
            raise UserError(
                f"the run of the variant {variant.name[:80]} would be called {loaded.name[:80]}, but must have "
                f"{NAME.says}, which no other run has: vary fewer keys at a time, or by shorter values"
            )
        loaded.output, loaded.seed = str(self.output / "runs"), seed
        return Run(variant, seed, loaded, RunDirectory(loaded))

    def of(self, variant: str) -> list[Run]:
        return [run for run in self.runs if run.variant.name == variant]

    @property
    def teachers(self) -> list[str]:
        return list(self.config.teachers)

    def subset_of(self, variant: Variant) -> list[str] | None:
        """The teachers of a variant that differs in them alone, or in nothing."""
        if variant.factor not in (CONFIG, TEACHERS):
            return None
        return list(self.of(variant.name)[0].config.teachers)


def all_variants(
    teachers: Sequence[str], subsets: str | None, factors: Mapping[str, str], grid: bool = False
) -> list[Variant]:
    """
    Args:
        subsets: as in `parse_subsets`.
        factors: {factor: comma-separated values}, as in `factor_variants`.
        grid: cross all of them.
    """
    lists = [] if subsets is None else [[subset_variant(s, teachers) for s in parse_subsets(subsets, teachers)]]
    lists += [factor_variants(factor, values, teachers) for factor, values in factors.items()]
    return crossed(lists) if grid and lists else list(itertools.chain(*lists))


def _nearest(name: str, known: Sequence[str]) -> str:
    return difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]

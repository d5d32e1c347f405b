"""Finished runs side by side: metrics, Δm, cost, and what their configs differ in. Seeds of one config are one row."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from sak import config as configuration
from sak import plotting, tables
from sak.bundles.build import build_tasks
from sak.bundles.bundle import load_bundle
from sak.config.loading import differences
from sak.errors import UserError, shown
from sak.evaluation.subject import check_output
from sak.files import read_json, write_json, write_text
from sak.metrics import Metrics
from sak.metrics.interval import NOTHING
from sak.research.ablation.cost import steps_of, timing
from sak.research.ablation.figure import figure
from sak.research.ablation.report import RETRAINED, Row, Table, as_json, cells

# What runs of one experiment differ in: a seed, and where they and their data lie.
FREE = ("name", "output", "seed", "data.root", "cache.path")


@dataclass
class Group:
    """The runs of one config, which differ in their seeds.

    Attributes:
        runs: {seed: (its directory, its config, its metrics)}.
    """

    name: str
    runs: dict[int, tuple[Path, DictConfig, Metrics]]

    @property
    def config(self) -> DictConfig:
        return next(iter(self.runs.values()))[1]


def compare(places: Sequence[Path], output: Path, baseline: str | None = None) -> str:
    """Write comparison.md, .json and .png to `output`; returns the table for people.

    Args:
        places: finished runs.
        baseline: the run or group that Δm is measured against; None: the first.

    Raises:
        UserError: a place is no finished run, runs were trained on other data, or have no task in common.
    """
    check_output(output, ["comparison.md", "comparison.png"], "comparison.json")
    groups = grouped(places)
    table = _table(groups, _baseline(groups, baseline))
    sections = [tables.markdown(cells(table, table.rows)), "\n".join(_notes(table, groups))]
    if differing := config_differences(groups):
        sections.insert(1, tables.markdown(differing))
    content = as_json(table)
    for row, group in zip(content["rows"], groups, strict=True):
        row["runs"] = [str(path) for path, _, _ in group.runs.values()]
    content["differences"] = {key: dict(zip(differing[0][1:], values, strict=True)) for key, *values in differing[1:]}
    write_text(output / "comparison.md", "\n\n".join(["# Runs compared", *sections, "![runs](comparison.png)"]) + "\n")
    plotting.save(figure(table), output / "comparison.png")
    write_json(output / "comparison.json", content)
    return "\n\n".join(sections)


def grouped(places: Sequence[Path]) -> list[Group]:
    """In the order in which the first run of each was given.

    Raises:
        UserError: a place is no finished run, or two have one config and seed.
    """
    groups: list[Group] = []
    for place in places:
        config, metrics = _opened(place)
        if groups and config.data.dataset != groups[0].config.data.dataset:
            raise UserError(
                f"{place} is of {config.data.dataset}, but {groups[0].config.data.dataset} is that of others"
            )
        group = next((each for each in groups if _one_experiment(each.config, config)), None)
        if group is None:
            group = Group("", {})
            groups.append(group)
        if config.seed in group.runs:
            raise UserError(f"{group.runs[config.seed][0]} and {place} are of one config and seed: give one of them")
        group.runs[config.seed] = (place, config, metrics)
    for group in groups:
        paths = [path for path, _, _ in group.runs.values()]
        names = {re.sub(r"[-_.]?(seed)?[-_.]?\d+$", "", path.name) for path in paths} if len(paths) > 1 else set()
        name = names.pop() if len(names) == 1 else ""
        group.name = name or paths[0].name
    for group in groups:
        if [each.name for each in groups].count(group.name) > 1:
            group.name = str(next(iter(group.runs.values()))[0])
    return groups


def _one_experiment(one: DictConfig, other: DictConfig) -> bool:
    """Whether two configs differ in nothing but their seeds, those of the runs that they start from included."""
    differing = set(differences(one, other)) - set(FREE)
    return not differing or (differing == {"student.weights"} and _start(one) == _start(other))


def _start(config: DictConfig) -> str | None:
    """The run that a run started from, without the number at its name's end where that is the seed of both."""
    start = config.student.weights
    return start and re.sub(rf"([-_.]|[-_.]?seed[-_.]?){config.seed}(?=(/student)?/*$)", "", start)


def _opened(place: Path) -> tuple[DictConfig, Metrics]:
    if not (place / "config.yaml").is_file():
        raise UserError(f"{place} is no run: it has no config.yaml")
    if not (place / "metrics.json").is_file():
        raise UserError(f"{place} is unfinished: the command that started it goes on where it stopped")
    config, metrics = configuration.load(place / "config.yaml"), read_json(place / "metrics.json")
    if not metrics:
        raise UserError(f"{place} was distilled only, so that there are no metrics to compare")
    config.output, config.name = str(place.resolve().parent), place.resolve().name  # where it lies now
    return config, metrics


def _baseline(groups: Sequence[Group], named: str | None) -> str:
    if named is None:
        return groups[0].name
    for group in groups:
        paths = [path for path, _, _ in group.runs.values()]
        if named == group.name or any(Path(named).resolve() == path.resolve() for path in paths):
            return group.name
    raise UserError(f"--baseline is {named!r}, but must be one of {', '.join(group.name for group in groups)}")


def _table(groups: Sequence[Group], baseline: str) -> Table:
    """Of the tasks that all runs have.

    Raises:
        UserError: there is none.
    """
    measured = [metrics for group in groups for _, _, metrics in group.runs.values()]
    known = build_tasks(groups[0].config.data)
    tasks = {name: task for name, task in known.items() if all(name in metrics for metrics in measured)}
    if not tasks:
        raise UserError("the runs have no task in common")
    rows = [_row(group, list(tasks)) for group in groups]
    return Table("", tasks, baseline, rows)


def _row(group: Group, tasks: Sequence[str]) -> Row:
    metrics = {seed: {task: found[task] for task in tasks} for seed, (_, _, found) in group.runs.items()}
    path = next(iter(group.runs.values()))[0]
    parameters = sum(weight.numel() for weight in load_bundle(path / "student").parameters())
    seconds = {}
    for seed, (_, config, _) in group.runs.items():
        try:
            seconds[seed] = timing(config).training(steps_of(config))
        except UserError:  # its events are gone, or the data by which its epochs are counted
            continue
    return Row(RETRAINED, group.name, "run", None, metrics, parameters, seconds)


def config_differences(groups: Sequence[Group]) -> list[list[str]]:
    """A header, and a line for each key that is not the same in all groups; [] if there is none."""
    configs = [group.config for group in groups]
    keys = {key for config in configs for key in differences(configs[0], config)} - set(FREE)
    keys = {_outermost(key, configs) for key in keys}
    lines = [[f"`{key}`", *(_value(config, key) for config in configs)] for key in sorted(keys)]
    return [["key", *(group.name for group in groups)], *lines] if lines else []


def _outermost(key: str, configs: Sequence[DictConfig]) -> str:
    """The key, or what it is part of and some configs have and others lack: a teacher is one difference, not ten."""
    parts = key.split(".")
    for end in range(1, len(parts)):
        whole = ".".join(parts[:end])
        if any(OmegaConf.select(config, whole) is None for config in configs):
            return whole
    return key


def _value(config: DictConfig, key: str) -> str:
    value = OmegaConf.select(config, key)
    if isinstance(value, DictConfig):
        return "given"
    return "–" if value is None else shown(value).replace("|", "\\|")


def _notes(table: Table, groups: Sequence[Group]) -> list[str]:
    notes = [f"Δm: against the mean of `{table.baseline}`; of the tasks that all runs have."]
    if table.several_seeds:
        notes.append(
            "±: half of the 95 % interval of the mean over seeds (Student's t). Paired: minus the Δm of the baseline "
            f"with the same seed. Finding: `{NOTHING}` where its interval holds 0."
        )
    else:
        notes.append("One seed: there is no interval, and no difference is a finding.")
    notes.append("Training: steps × the median seconds of a step, without evaluation, on the machine as it was.")
    notes += [
        f"`{group.name}`: {', '.join(f'{path} (seed {seed})' for seed, (path, _, _) in group.runs.items())}"
        for group in groups
    ]
    return notes

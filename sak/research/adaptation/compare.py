"""All ways to use a frozen backbone, in one comparison: ordinary runs of each method and seed, costs, one table.

The directory of a comparison holds
    configs/         the resolved configs whose steps were measured
    runs/            an ordinary run directory for each method and seed
    costs.json       what was measured, so that it is not measured again
    comparison.md    the table; comparison.json and comparison.png hold the same
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from sak import config as configuration
from sak.bundles.build import build_tasks
from sak.config.schema import FROZEN, METHODS
from sak.errors import UserError
from sak.files import read_json, write_json, write_text
from sak.plotting import save
from sak.research.ablation.report import RETRAINED, Row, Table
from sak.research.ablation.variants import CONFIG, Ablation, Run, Variant
from sak.research.adaptation import report
from sak.research.adaptation.cost import Cost, measured
from sak.research.adaptation.figure import STUDENT, figure
from sak.training.run_directory import RunDirectory, lock
from sak.training.train import train

FACTOR = "method"
S2 = "_s2"  # ends the name of a method on features at several scales
OURS = {".lock", "configs", "runs", "costs.json", *(f"comparison.{form}" for form in ("md", "json", "png"))}
ALL = tuple(name for method in METHODS for name in ((method, f"{method}{S2}") if method in FROZEN else (method,)))


def variants(names: Sequence[str], backbone: str, scales: str, own: Sequence[str]) -> list[Variant]:
    """A variant for each of the methods.

    Args:
        names: of `ALL`.
        scales: of S2, as in 1,2.
        own: METHOD:KEY=VALUE, an override of one method alone.

    Raises:
        UserError: a method is unknown, or an override has another form.
    """
    if unknown := [name for name in names if name not in ALL]:
        raise UserError(f"--methods has {unknown[0]!r}, but knows {', '.join(ALL)}")
    overrides: dict[str, list[str]] = {name: [] for name in ALL}
    for text in own:
        name, _, override = text.partition(":")
        if name not in ALL or "=" not in override:
            raise UserError(
                f"--set {text} is not of the form METHOD:KEY=VALUE with one of the methods {', '.join(ALL)}"
            )
        overrides[name].append(override)
    found = []
    for name in names:
        method = name.removesuffix(S2)
        several = f"[{scales}]" if name.endswith(S2) else "[1]"
        keys = [f"stages.multitask.method={method}", f"teachers.{backbone}.scales={several}"]
        found.append(Variant(name, FACTOR, (*keys, *overrides[name])))
    return found


class Comparison:
    """
    Args:
        config: of one of the methods; the others differ by it alone.
        overrides: key=value of all.
        names: of the methods, `ALL` or some.
        baseline: the one that Δm is measured against.
        students: finished runs of a student, which get a row.
        own, scales: as of `variants`.
        output: directory; None: ``<output>/<name>-comparison`` of the config.

    Raises:
        UserError: an argument does not fit the config, a run's directory holds another experiment, or there is no
            finished run of a student where one is named.
    """

    def __init__(
        self,
        config: str,
        overrides: Sequence[str],
        names: Sequence[str],
        seeds: Sequence[int],
        baseline: str = "linear",
        students: Sequence[str] = (),
        own: Sequence[str] = (),
        scales: str = "1,2",
        output: str | None = None,
    ):
        first = configuration.load(config, overrides)
        if first.stages.multitask.method is None:
            raise UserError(f"{config}: stages.multitask.method is null, but must be one of {', '.join(METHODS)}")
        if baseline not in names:
            raise UserError(f"--baseline is {baseline!r}, which is none of the methods {', '.join(names)}")
        self.names, self.baseline = list(names), baseline
        place = output or str(Path(first.output) / f"{first.name}-comparison")
        chosen = variants(names, first.adaptation.backbone, scales, own)
        # Which puts the config itself before all others, and knows which of them it stands for.
        self.ablation = Ablation(config, overrides, chosen, seeds, baseline, place)
        self.output = self.ablation.output
        self._check_output()
        self.tasks = build_tasks(first.data)
        self.students = [self._student(place, first) for place in students]

    def _check_output(self) -> None:
        """
        Raises:
            UserError: what lies where the comparison writes has not been written by one.
        """
        there = {entry.name for entry in self.output.iterdir()} if self.output.is_dir() else set()
        if there - {".lock"} and not there <= OURS:
            raise UserError(f"{self.output} is not empty and holds no comparison: choose another --output")

    def _student(self, place: str, first: DictConfig) -> RunDirectory:
        file = Path(place) / "config.yaml"
        if not file.is_file() or not (Path(place) / "metrics.json").is_file():
            raise UserError(f"--student {place} is no finished run")
        config = configuration.load(file, [f"output={Path(place).parent}", f"name={Path(place).name}"])
        if lacking := [task for task in first.data.tasks if task not in config.data.tasks]:
            raise UserError(f"--student {place} has no task {lacking[0]}: train one on the same tasks")
        for key in ("dataset", "image_size", "renderer"):
            if config.data[key] != first.data[key]:
                raise UserError(
                    f"--student {place} has data.{key}={config.data[key]}, but the comparison {first.data[key]}: train "
                    "one on the same data"
                )
        return RunDirectory(config)

    def _runs(self, name: str) -> list[Run]:
        return self.ablation.of(self._variant(name))

    def _variant(self, name: str) -> str:
        """What the ablation calls it: the first variant of its content."""
        return name if any(variant.name == name for variant in self.ablation.variants) else CONFIG

    def finish(self, steps: int, costs_only: bool = False) -> Path:
        """Train what is missing, measure what is not measured yet, write the table.

        Args:
            steps: that are timed.
            costs_only: train nothing.

        Returns:
            the table's file.

        Raises:
            UserError: a run failed (the table has the others), or another process is at work.
            KeyboardInterrupt: the user stopped it; the same command goes on from there.
        """
        with lock(self.output):
            failed = {} if costs_only else self._train()
            costs = self._costs(steps)
            rows = [] if costs_only else self._rows()
            table = Table(self.ablation.config.name, self.tasks, self.baseline, rows, failed)
            write_json(self.output / "comparison.json", report.as_json(table, costs))
            text = report.as_markdown(table, costs, steps)
            if table.reference:
                save(figure(table, costs), self.output / "comparison.png")
                text += "\n![accuracy against what it costs](comparison.png)\n"
            write_text(self.output / "comparison.md", text)
            print(text)
        if failed:
            name, reason = next(iter(failed.items()))
            raise UserError(
                f"{len(failed)} runs failed, as {name}: {reason}; the same command tries again, and comparison.md "
                "holds the others"
            )
        return self.output / "comparison.md"

    def _train(self) -> dict[str, str]:
        """{run: why it failed}; the others go on."""
        failed = {}
        # Seed by seed, so that what has been interrupted compares all methods by the seeds it has.
        of_seeds = zip(*(self._runs(name) for name in self.names), strict=True)
        runs = [run for of_seed in of_seeds for run in of_seed if not run.directory.finished]
        for number, run in enumerate(runs, start=1):
            print(f"comparison, run {number} of {len(runs)}: {run.name}", flush=True)
            try:
                train(run.config)
            except (UserError, FloatingPointError) as error:
                failed[run.name] = str(error)
        return failed

    def _costs(self, steps: int) -> dict[str, Cost]:
        """{row: its cost}."""
        file = self.output / "costs.json"
        kept = read_json(file) if file.is_file() else {}
        configs = {name: self._runs(name)[0].config for name in self.names}
        if self.students:
            configs[STUDENT] = configuration.load(self.students[0].config_file)
        for name, config in tqdm(configs.items(), desc="costs", unit="method", dynamic_ncols=True):
            path = self.output / "configs" / f"cost-{name}.yaml"
            configuration.save(config, path)
            if kept.get(name, {}).get("steps") != steps:
                cost = measured(path, steps, student=name == STUDENT)
                kept[name] = {"steps": steps, "cost": dataclasses.asdict(cost)}
                write_json(file, kept)
        return {name: Cost.of(kept[name]["cost"]) for name in configs}

    def _rows(self) -> list[Row]:
        rows = []
        for name in self.names:
            finished = [run for run in self._runs(name) if run.directory.finished]
            rows.append(self._row(name, {run.seed: run.directory for run in finished}))
        if self.students:
            seeds = {int(configuration.load(run.config_file).seed): run for run in self.students}
            rows.append(self._row(STUDENT, seeds))
        return rows

    def _row(self, name: str, runs: Mapping[int, RunDirectory]) -> Row:
        metrics = {seed: read_json(run.metrics, list(self.tasks)) for seed, run in runs.items()}
        return Row(RETRAINED, name, FACTOR, None, metrics, 0)

"""Run an ablation: a plan, then what is missing of it, then one table.

The directory of an ablation holds
    configs/       the resolved config of each run
    runs/          an ordinary run directory for each variant and seed
    logs/          what each of them said
    cluster/       what submitit keeps of its jobs, where they are a cluster's
    trial/         a run of a few steps, whose speed the plan goes by until a run is finished
    masked/        metrics of masked students, by student
    ablation.md    the tables; ablation.csv, ablation.json and ablation.png hold the same
    selection/     which teachers are worth having, where that was asked for
"""

import functools
import shutil
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from sak import config as configuration
from sak import data, tables
from sak.bundles.build import build_tasks
from sak.config.schema import STAGES
from sak.distillation.cached_features import stage_is_cached
from sak.errors import UserError
from sak.evaluation.distributed import build_accelerator, settled
from sak.evaluation.masking import MaskedStudents, teachers_of
from sak.evaluation.subject import open_subject
from sak.files import read_json, write_json, write_text
from sak.metrics import Metrics
from sak.plotting import save
from sak.research.ablation import report
from sak.research.ablation.cost import (
    TRIAL_STEPS,
    Timing,
    duration,
    evaluations_of,
    mean_timing,
    steps_of,
    student_parameters,
    timing,
    trial_of,
)
from sak.research.ablation.figure import figure
from sak.research.ablation.jobs import Job, Start, environments, run_jobs
from sak.research.ablation.report import MASKED, RETRAINED, Row, Table
from sak.research.ablation.variants import CONFIG, TEACHERS, Ablation, Run, subset_name
from sak.training.run_directory import RunDirectory, lock


class AblationRunner:
    """Runs what is missing of an ablation, and reports.

    Args:
        masked: subsets of the teachers that the config's students are evaluated with, too.
        jobs: runs at a time.
        train, fill: the commands that take a config's path: of training, and of filling the teachers' cache.
        start: starts a run, as of `run_jobs`.

    Raises:
        UserError: the parts of a variant's config do not fit together.
    """

    what = "ablation"  # what it calls itself

    def __init__(
        self,
        ablation: Ablation,
        masked: Sequence[tuple[str, ...]],
        jobs: int,
        train: Sequence[str],
        fill: Sequence[str],
        start: Start | None = None,
    ):
        self.ablation, self.jobs, self.train, self.fill, self.start = ablation, jobs, train, fill, start
        self.output, self.file = ablation.output, ablation.output / "ablation.md"
        self._check_output()
        # With all of them it is the student itself.
        self.masked = [subset for subset in masked if list(subset) != ablation.teachers]
        self.tasks = build_tasks(ablation.config.data)
        self.steps = {v.name: steps_of(ablation.of(v.name)[0].config) for v in ablation.variants}
        self.parameters = {v.name: student_parameters(ablation.of(v.name)[0].config) for v in ablation.variants}

    def finish(self, dry_run: bool = False) -> Path | None:
        """Say the plan, run what is missing, write the table.

        Returns:
            the table's file; None after a dry run.

        Raises:
            UserError: the trial failed, a run failed (the table has the others), or another process is at work.
            KeyboardInterrupt: the user stopped it; the same command goes on from there.
        """
        with lock(self.output):
            print(self._plan(), flush=True)
            if dry_run:
                return None
            try:
                failed = self._run(self._fill_jobs()) or self._run(self._train_jobs())
            except KeyboardInterrupt:
                if any(run.directory.finished for run in self.ablation.runs):
                    self.report_so_far()
                raise
            self.report(failed)
        if failed:
            name, reason = next(iter(failed.items()))
            raise UserError(
                f"{len(failed)} of {len(self.ablation.runs)} runs failed, as {name}: {reason} "
                f"(see {self.output / 'logs'}); the same command tries again, and {self.file} holds the others"
            )
        return self.file

    def report_so_far(self) -> None:
        """Write and say what is finished as the user stops it, without what would take long."""
        print(report.console(self._write(self._retrained(), {})))

    def report(self, failed: dict[str, str]) -> None:
        """Write and say what the finished runs have found; `failed` is {run: what it said last}."""
        rows = self._retrained()
        table = self._write(rows, failed)
        if self.masked:  # which may yet fail over an image: what has been trained is on disk by then
            table = self._write(rows + self._masked(), failed)
        if any(row.metrics for row in table.rows):
            print(report.console(table))

    def _check_output(self) -> None:
        """
        Raises:
            UserError: what lies where the ablation writes has not been written by one.
        """
        configs, trial = self.output / "configs", self.output / "trial"
        if not self.output.exists():
            return
        if not self.output.is_dir():
            raise UserError(f"{self.output} is a file: choose another --output")
        foreign = any(entry.name != ".lock" for entry in self.output.iterdir())
        if foreign and not (configs / "trial.yaml").is_file() and not any(configs.glob("*-seed*.yaml")):
            raise UserError(f"{self.output} is not empty and holds no ablation: choose another --output")
        if trial.exists() and not _is_trial(trial, configs / "trial.yaml"):
            raise UserError(f"{trial} is in the way, as it is no trial run: move it away, or choose another --output")

    # --- the plan -----------------------------------------------------------------------------------------------------

    def _plan(self) -> str:
        ablation = self.ablation
        missing = [run for run in ablation.runs if not run.directory.finished]
        done = len(ablation.runs) - len(missing)
        counts = sorted({len(ablation.of(variant.name)) for variant in ablation.variants})
        seeds = " or ".join(map(str, counts))
        rows = [["variant", "factor", "parameters, M", "steps", "finished"]]
        for variant in ablation.variants:
            runs = ablation.of(variant.name)
            steps = " + ".join(str(self.steps[variant.name].get(stage, 0)) for stage in STAGES)
            finished = f"{sum(run.directory.finished for run in runs)} of {len(runs)}"
            rows.append([variant.name, variant.factor, f"{self.parameters[variant.name] / 1e6:.2f}", steps, finished])
        lines = [
            f"{self.what} of {ablation.config.name} in {self.output}: {len(ablation.variants)} variants x "
            f"{seeds} seeds = {len(ablation.runs)} runs, {done} finished and {len(missing)} to do, "
            f"{self.jobs} at a time",
            tables.markdown(rows),
        ]
        masked = len(self.masked) * len(ablation.seeds)
        if masked:
            names = ", ".join(map(subset_name, self.masked))
            lines.append(f"masked, nothing is trained for it: {names}, of {len(ablation.seeds)} students")
        if missing or masked:
            speeds, source = self._speeds()
            seconds = sum(self._seconds(run, speeds[run.variant.name]) for run in missing)
            steps = sum(self._steps(run) for run in missing)
            rest = masked * speeds[CONFIG].rest
            of_masked = f", and at most {duration(rest)} for the masked students" if masked else ""
            lines.append(
                f"time: about {duration(seconds / self.jobs)} for {steps:,} steps{of_masked}; by {source}, without the "
                "start of each process"
            )
        return "\n".join(lines)

    def _steps(self, run: Run) -> int:
        return sum(self.steps[run.variant.name].values())

    def _seconds(self, run: Run, speed: Timing) -> float:
        steps = self.steps[run.variant.name]
        return speed.whole(steps, evaluations_of(run.config, steps))

    def _speeds(self) -> tuple[dict[str, Timing], str]:
        """Of each variant, by its own finished runs, else by all, else by a trial; and where that is known from."""
        variants = [variant.name for variant in self.ablation.variants]
        finished = [run for run in self.ablation.runs if run.directory.finished]
        if finished:
            of_all = mean_timing([self._timing(run.name) for run in finished])
            own = {name: [self._timing(run.name) for run in finished if run.variant.name == name] for name in variants}
            speeds = {name: mean_timing(timings) if timings else of_all for name, timings in own.items()}
            as_all = "" if all(own.values()) else ", variants without any as the median of all"
            return speeds, f"{len(finished)} finished runs{as_all}"
        config = trial_of(self.ablation.of(CONFIG)[0].config, self.output)
        run = RunDirectory(config)
        try:
            run.check(config)
        except UserError:  # of the config as it was before: `_check_output` has seen that it is a trial
            shutil.rmtree(run.path)
        if not run.finished:
            print(f"a trial of {TRIAL_STEPS} steps of each stage, to know how long it will take", flush=True)
            failed = self._run([self._job("trial", config, self.train, run.path)])
            if failed:
                raise UserError(f"the trial run failed: {failed['trial']} (see {self.output / 'logs' / 'trial.log'})")
        source = f"a trial of {TRIAL_STEPS} steps of each stage, whose first is left out of the median"
        return dict.fromkeys(variants, timing(config)), f"{source}, as if every variant were as fast"

    @functools.cache  # noqa: B019  (there is one runner in a process)
    def _timing(self, run_name: str) -> Timing:
        return timing(next(run.config for run in self.ablation.runs if run.name == run_name))

    # --- running ------------------------------------------------------------------------------------------------------

    def _job(self, name: str, config: DictConfig, command: Sequence[str], directory: Path | None = None) -> Job:
        file = self.output / "configs" / f"{name}.yaml"
        configuration.save(config, file)
        return Job(name, [*command, str(file)], self.output / "logs" / f"{name}.log", directory)

    def _fill_jobs(self) -> list[Job]:
        """The teachers' features ahead of training, once for all variants of a seed, whose views of the images differ.

        So no two runs compute the same features, and what one reads does not depend on the others.
        """
        if self.ablation.config.cache.path is None:
            return []
        seeds = {run.seed for run in self.ablation.runs if not run.directory.finished}
        runs = [run for run in self.ablation.of(CONFIG) if run.seed in seeds]
        runs = [run for run in runs if any(stage_is_cached(run.config, stage) for stage in STAGES)]
        return [self._job(f"features-seed{run.seed}", run.config, self.fill) for run in runs]

    def _train_jobs(self) -> list[Job]:
        """Seed by seed, so that what is stopped has all variants of the first ones."""
        missing = [run for run in self.ablation.runs if not run.directory.finished]
        missing.sort(key=lambda run: self.ablation.seeds.index(run.seed))
        return [self._job(run.name, run.config, self.train, run.directory.path) for run in missing]

    def _run(self, jobs: Sequence[Job]) -> dict[str, str]:
        """{name: reason} of those that failed."""
        if not jobs:
            return {}
        with tqdm(total=len(jobs), desc=self.what, unit="run", dynamic_ncols=True) as progress:
            return run_jobs(jobs, environments(self.jobs), progress, self.start)

    # --- the table ----------------------------------------------------------------------------------------------------

    def measured(self, variant: str, tasks: Sequence[str]) -> tuple[dict[int, Metrics], dict[int, float]]:
        """Of a variant's finished runs {seed: metrics of these tasks}, and {seed: seconds of training alone}."""
        finished = [run for run in self.ablation.of(variant) if run.directory.finished]
        metrics = {run.seed: read_json(run.directory.metrics, list(tasks)) for run in finished}
        return metrics, {run.seed: self._timing(run.name).training(self.steps[variant]) for run in finished}

    def _retrained(self) -> list[Row]:
        rows = []
        for variant in self.ablation.variants:
            metrics, seconds = self.measured(variant.name, list(self.tasks))
            teachers = self.ablation.subset_of(variant)
            rows.append(
                Row(RETRAINED, variant.name, variant.factor, teachers, metrics, self.parameters[variant.name], seconds)
            )
        return rows

    def _masked(self) -> list[Row]:
        rows = {s: Row(MASKED, subset_name(s), TEACHERS, list(s), {}, self.parameters[CONFIG]) for s in self.masked}
        finished = [run for run in self.ablation.of(CONFIG) if run.directory.finished]
        for run in finished if rows else ():
            subject = open_subject(str(run.directory.path))
            images = data.build(subject.data, "val")
            accelerator = build_accelerator(subject.precision)
            file = self.output / "masked" / f"{run.name}.json"
            students = MaskedStudents(subject, self.tasks, images, accelerator, file)
            without = [set(teachers_of(subject)) - set(subset) for subset in rows]
            for row, metrics in zip(rows.values(), students.metrics(without), strict=True):
                row.metrics[run.seed] = metrics
        return list(rows.values())

    def _write(self, rows: list[Row], failed: dict[str, str]) -> Table:
        found = Table(self.ablation.config.name, self.tasks, self.ablation.baseline, rows, failed)
        if any(row.metrics for row in rows):
            write_json(self.output / "ablation.json", report.as_json(found))
            write_text(self.output / "ablation.csv", report.as_csv(found))
            save(figure(found), self.output / "ablation.png")
            write_text(self.file, report.as_markdown(found))
        return found


def _is_trial(directory: Path, made_by: Path) -> bool:
    """Whether the directory holds the run of this config, or nothing yet."""
    if not directory.is_dir() or not made_by.is_file():
        return False
    if not any(entry.name != ".lock" for entry in directory.iterdir()):
        return True
    kept = directory / "config.yaml"
    if not kept.is_file():
        return False
    asked = settled(configuration.load(made_by), kept)
    return set(configuration.differences(configuration.load(kept), asked)) <= {"output"}  # the ablation may have moved

"""An ablation's results as one table, retrained and masked students kept apart."""

import csv
import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from sak import tables
from sak.metrics import Metrics
from sak.metrics.delta_m import delta_m
from sak.metrics.interval import NOTHING, UNKNOWN, finding, plus_minus, spread
from sak.tasks import Task, arrow, headlines

RETRAINED, MASKED = "retrained", "masked"
KINDS = (RETRAINED, MASKED)
COLUMNS = ("mean", "std", "ci95")  # of what seeds spread
MEANING = {
    RETRAINED: "A student per variant and seed, trained from the start.",
    MASKED: "The students of the variant `config` with teachers knocked out at inference, the remaining router weights "
    "renormalised; nothing is trained for it, and no cost is saved but that of the paths.",
}


@dataclass
class Row:
    """One variant: its finished runs, or what was made of them by masking.

    Attributes:
        teachers: of a variant that differs from the config in them alone, or in nothing; else None.
        metrics: {seed: metrics}.
        parameters: of the student, as it is used: without aligners.
        seconds: {seed: of training, without evaluation}; empty where nothing was trained.
    """

    kind: str
    variant: str
    factor: str
    teachers: list[str] | None
    metrics: dict[int, Metrics]
    parameters: int
    seconds: dict[int, float] = field(default_factory=dict)


@dataclass
class Table:
    """
    Attributes:
        baseline: name of the retrained variant that Δm is measured against: the mean of its metrics over seeds.
        failed: {run: what it said last}.
    """

    config: str
    tasks: Mapping[str, Task]
    baseline: str
    rows: list[Row]
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def several_seeds(self) -> bool:
        """Whether gains can be paired: of one seed a paired one is the plain one."""
        return any(len(row.metrics) > 1 for row in self.rows)

    @property
    def baseline_row(self) -> Row | None:
        """None before one of its runs is finished."""
        return next((r for r in self.rows if r.kind == RETRAINED and r.variant == self.baseline and r.metrics), None)

    @property
    def reference(self) -> Metrics | None:
        """The baseline's mean metrics of the tasks that a relative gain exists for; None before it has any."""
        if (row := self.baseline_row) is None:
            return None
        means = mean_metrics(list(row.metrics.values()))
        return {task: values for task, values in means.items() if values[self.tasks[task].headline()[0]]} or None

    def gain(self, metrics: Metrics) -> float:
        """Δm against the baseline's mean, in percent. There is a reference."""
        reference = cast(Metrics, self.reference)
        return delta_m({task: metrics[task] for task in reference}, reference, headlines(self.tasks))

    def gains(self, row: Row) -> list[float]:
        """Δm of each seed: their mean is that of the mean metrics."""
        return [self.gain(found) for found in row.metrics.values()] if self.reference else []

    def paired(self, row: Row, value: Callable[[Metrics], float]) -> list[float]:
        """A value of each seed minus the baseline's with this seed: what seeds do to both alike drops out."""
        baseline = self.baseline_row
        if baseline is None:
            return []
        return [
            value(found) - value(baseline.metrics[seed])
            for seed, found in row.metrics.items()
            if seed in baseline.metrics
        ]

    def paired_gains(self, row: Row) -> list[float]:
        return self.paired(row, self.gain) if self.reference else []

    def finding(self, row: Row) -> str:
        """Whether it differs from the baseline by more than chance, as `sak.metrics.interval.finding` says."""
        return UNKNOWN if row is self.baseline_row else finding(self.paired_gains(row))

    def of(self, kind: str) -> list[Row]:
        return [row for row in self.rows if row.kind == kind and row.metrics]


def mean_metrics(several: Sequence[Metrics]) -> Metrics:
    return {
        task: {metric: statistics.fmean(each[task][metric] for each in several) for metric in values}
        for task, values in several[0].items()
    }


def as_json(table: Table) -> dict:
    """{..., "rows": [...]} with mean, std and half of the 95 % interval (None of one seed), and every seed's values;
    ``finding`` is better, worse or none, or None where there is nothing to tell it by."""

    def content(row: Row) -> dict:
        metrics = list(row.metrics.values())
        return {
            "kind": row.kind,
            "variant": row.variant,
            "factor": row.factor,
            "teachers": row.teachers,
            "seeds": list(row.metrics),
            "metrics": {
                task: {metric: spread([each[task][metric] for each in metrics]) for metric in values}
                for task, values in metrics[0].items()
            },
            "delta_m": spread(table.gains(row)),
            "delta_m_paired": spread(table.paired_gains(row)),
            "finding": None if (found := table.finding(row)) == UNKNOWN else found,
            "parameters": row.parameters,
            "training_seconds": spread(list(row.seconds.values())),
        }

    return {
        "config": table.config,
        "baseline": table.baseline,
        "delta_m_tasks": list(table.reference or ()),
        "rows": [content(row) for kind in KINDS for row in table.of(kind)],
        "failed": table.failed,
    }


def as_csv(table: Table) -> str:
    """A line per row, with `COLUMNS` for each task's headline metric, Δm and the training's seconds."""
    headline = {name: task.headline()[0] for name, task in table.tasks.items()}
    titles = [*(f"{task}.{metric}" for task, metric in headline.items()), "delta_m", "delta_m_paired"]
    header = ["kind", "variant", "factor", "seeds", *(f"{name} {what}" for name in titles for what in COLUMNS)]
    header += ["finding", "parameters", *(f"training_seconds {what}" for what in COLUMNS)]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    for row in as_json(table)["rows"]:
        found = [row["metrics"][task][metric] for task, metric in headline.items()]
        numbers = [
            (each or {}).get(what) for each in [*found, row["delta_m"], row["delta_m_paired"]] for what in COLUMNS
        ]
        seconds = [(row["training_seconds"] or {}).get(what) for what in COLUMNS]
        start = [row["kind"], row["variant"], row["factor"], len(row["seeds"])]
        writer.writerow([*start, *numbers, row["finding"], row["parameters"], *seconds])
    return file.getvalue()


def short_names(table: Table) -> dict[str, str]:
    """{variant: its name without what the keys of no other variant need to be told apart}.

    As ``balance=0.01`` of ``stages.multitask.balance=0.01``; parts of a grid's variant are shortened one by one.
    """
    parts = {row.variant: row.variant.split(",") for row in table.rows}
    keys = {part.partition("=")[0] for names in parts.values() for part in names if "=" in part}

    def shortest(part: str) -> str:
        key, equals, value = part.partition("=")
        words = key.split(".") if equals else [key]
        endings = [".".join(words[start:]) for start in reversed(range(len(words)))]
        alone = (e for e in endings if not any(k.endswith(f".{e}") or k == e for k in keys - {key}))
        return next(alone, key) + equals + value

    return {variant: ",".join(map(shortest, names)) for variant, names in parts.items()}


def as_markdown(table: Table) -> str:
    lines = [f"# Ablation of {table.config}"]
    for kind in KINDS:
        if rows := table.of(kind):
            lines += ["", f"## {kind.capitalize()}", "", MEANING[kind], "", tables.markdown(cells(table, rows))]
    lines += ["", *_notes(table), "", "![ablation](ablation.png)"]
    return "\n".join(lines) + "\n"


def console(table: Table) -> str:
    return "\n\n".join(
        [
            *(tables.markdown(cells(table, rows)) for kind in KINDS if (rows := table.of(kind))),
            "\n".join(_notes(table)),
        ]
    )


def cells(table: Table, rows: Sequence[Row]) -> list[list[str]]:
    header = ["variant", "kind", "seeds"]
    for name, task in table.tasks.items():
        header.append(f"{name} {task.headline()[0]} {arrow(task)}")
    paired, names = table.several_seeds, short_names(table)
    lines = [[*header, "Δm %", *(["paired Δm %", "finding"] if paired else []), "parameters, M", "training, min"]]
    for row in rows:
        metrics = row.metrics.values()
        lines.append([names[row.variant], row.kind, str(len(metrics))])
        for name, task in table.tasks.items():
            lines[-1].append(plus_minus([each[name][task.headline()[0]] for each in metrics], f".{task.digits}f"))
        lines[-1] += [
            plus_minus(table.gains(row), "+.2f"),
            *([plus_minus(table.paired_gains(row), "+.2f"), table.finding(row)] if paired else []),
            f"{row.parameters / 1e6:.2f}",
            plus_minus([seconds / 60 for seconds in row.seconds.values()], ".2f"),
        ]
    return lines


def _notes(table: Table) -> list[str]:
    reference, names = table.reference, short_names(table)
    baseline = names.get(table.baseline, table.baseline)
    if table.several_seeds:
        notes = [
            "±: half of the 95 % confidence interval of the mean over seeds (Student's t); standard deviations are in "
            "`ablation.csv` and `ablation.json`."
        ]
    else:
        notes = ["One seed: there is no interval, and no difference is a finding."]
    if reference is None:
        notes.append(f"No Δm: {baseline} has no finished run, or 0 in every headline metric.")
    else:
        notes.append(f"Δm: against the mean of the retrained variant `{baseline}` over its seeds.")
        if table.several_seeds:
            notes.append(
                f"Paired: minus the Δm of `{baseline}` with the same seed, which sees the same images in the "
                f"same order. Finding: `{NOTHING}` where its interval holds 0; of twenty variants that change nothing "
                "one is taken for a finding by chance."
            )
        if left_out := [task for task in table.tasks if task not in reference]:
            notes.append(f"{', '.join(left_out)} are not in Δm: the baseline has 0 there, so no relative gain exists.")
    notes.append("Training: steps × the median seconds of a step, without evaluation, on the machine as it was.")
    shortened = [f"`{short}` is {name}" for name, short in names.items() if short != name]
    notes += [f"{', '.join(shortened)}."] if shortened else []
    notes += [f"{name} failed and is missing: {reason}" for name, reason in table.failed.items()]
    return notes

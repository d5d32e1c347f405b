"""An ablation's results as one table and a figure, retrained and masked students kept apart."""

import csv
import io
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure

from sak import tables
from sak.metrics import Metrics
from sak.metrics.delta_m import delta_m
from sak.tasks import Task, arrow, headlines

RETRAINED, MASKED = "retrained", "masked"
KINDS = (RETRAINED, MASKED)
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

    def gains(self, row: Row) -> list[float]:
        """Δm of each seed against the baseline's mean, in percent: the mean over seeds is that of the mean metrics."""
        reference = self.reference
        if reference is None:
            return []
        of_tasks = headlines(self.tasks)
        return [
            delta_m({task: found[task] for task in reference}, reference, of_tasks) for found in row.metrics.values()
        ]

    def paired_gains(self, row: Row) -> list[float]:
        """Δm of each seed minus that of the baseline with this seed: what seeds do to both alike drops out."""
        baseline = self.baseline_row
        if baseline is None or self.reference is None:
            return []
        of_baseline = dict(zip(baseline.metrics, self.gains(baseline), strict=True))
        gains = zip(row.metrics, self.gains(row), strict=True)
        return [gain - of_baseline[seed] for seed, gain in gains if seed in of_baseline]

    def of(self, kind: str) -> list[Row]:
        return [row for row in self.rows if row.kind == kind and row.metrics]


def mean_metrics(several: Sequence[Metrics]) -> Metrics:
    return {
        task: {metric: statistics.fmean(each[task][metric] for each in several) for metric in values}
        for task, values in several[0].items()
    }


def as_json(table: Table) -> dict:
    """{..., "rows": [...]} with mean, std (n - 1; None of one seed) and the values of every seed."""

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


def spread(values: Sequence[float]) -> dict | None:
    if not values:
        return None
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": std, "values": list(values)}


def as_csv(table: Table) -> str:
    """A line per row, with a mean and a std column for each task's headline metric, Δm and the training's seconds."""
    headline = {name: task.headline()[0] for name, task in table.tasks.items()}
    figures = [f"{task}.{metric}" for task, metric in headline.items()]
    header = ["kind", "variant", "factor", "seeds"]
    header += [f"{name} {what}" for name in [*figures, "delta_m", "delta_m_paired"] for what in ("mean", "std")]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*header, "parameters", "training_seconds mean", "training_seconds std"])
    for row in as_json(table)["rows"]:
        found = [row["metrics"][task][metric] for task, metric in headline.items()]
        numbers = [
            (each or {}).get(what)
            for each in [*found, row["delta_m"], row["delta_m_paired"]]
            for what in ("mean", "std")
        ]
        seconds = [(row["training_seconds"] or {}).get(what) for what in ("mean", "std")]
        start = [row["kind"], row["variant"], row["factor"], len(row["seeds"])]
        writer.writerow([*start, *numbers, row["parameters"], *seconds])
    return file.getvalue()


def as_markdown(table: Table) -> str:
    lines = [f"# Ablation of {table.config}"]
    for kind in KINDS:
        if rows := table.of(kind):
            lines += ["", f"## {kind.capitalize()}", "", MEANING[kind], "", tables.markdown(_cells(table, rows))]
    lines += ["", *_notes(table), "", "![ablation](ablation.png)"]
    return "\n".join(lines) + "\n"


def console(table: Table) -> str:
    return "\n\n".join(
        [
            *(tables.markdown(_cells(table, rows)) for kind in KINDS if (rows := table.of(kind))),
            "\n".join(_notes(table)),
        ]
    )


def _cells(table: Table, rows: Sequence[Row]) -> list[list[str]]:
    header = ["variant", "kind", "seeds"]
    for name, task in table.tasks.items():
        header.append(f"{name} {task.headline()[0]} {arrow(task)}")
    paired = table.several_seeds
    cells = [[*header, "Δm %", *(["paired Δm %"] if paired else []), "parameters, M", "training, min"]]
    for row in rows:
        metrics = row.metrics.values()
        cells.append([row.variant, row.kind, str(len(metrics))])
        for name, task in table.tasks.items():
            digits = 4 if task.units == "metres" else 2
            cells[-1].append(_plus_minus([each[name][task.headline()[0]] for each in metrics], f".{digits}f"))
        cells[-1] += [
            _plus_minus(table.gains(row), "+.2f"),
            *([_plus_minus(table.paired_gains(row), "+.2f")] if paired else []),
            f"{row.parameters / 1e6:.2f}",
            _plus_minus([seconds / 60 for seconds in row.seconds.values()], ".2f"),
        ]
    return cells


def _plus_minus(values: Sequence[float], form: str) -> str:
    if not values:
        return "–"
    std = f" ± {statistics.stdev(values):{form.lstrip('+')}}" if len(values) > 1 else ""
    mean = f"{statistics.fmean(values):{form}}"
    return (mean.replace("-", "+") if float(mean) == 0 else mean) + std


def _notes(table: Table) -> list[str]:
    reference = table.reference
    notes = ["mean ± standard deviation (n - 1) over seeds."]
    if reference is None:
        notes.append(f"No Δm: {table.baseline} has no finished run, or 0 in every headline metric.")
    else:
        notes.append(f"Δm: against the mean of the retrained variant `{table.baseline}` over its seeds.")
        if table.several_seeds:
            notes.append(
                f"Paired: minus the Δm of `{table.baseline}` with the same seed, which sees the same images in the "
                "same order; its spread tells small differences from chance."
            )
        if left_out := [task for task in table.tasks if task not in reference]:
            notes.append(f"{', '.join(left_out)} are not in Δm: the baseline has 0 there, so no relative gain exists.")
    notes.append("Training: steps × the median seconds of a step, without evaluation, on the machine as it was.")
    notes += [f"{name} failed and is missing: {reason}" for name, reason in table.failed.items()]
    return notes


def figure(table: Table) -> Figure:
    """Δm and each headline metric, a line for each row: seeds as ticks, their mean as a point; filled: retrained."""
    rows = [row for kind in KINDS for row in table.of(kind)]

    def values_in(task: str, measure: str) -> Callable[[Row], list[float]]:
        return lambda row: [found[task][measure] for found in row.metrics.values()]

    panels: list[tuple[str, Callable[[Row], list[float]]]] = [("Δm %", table.gains)] if table.reference else []
    for name, task in table.tasks.items():
        measure = task.headline()[0]
        panels.append((f"{name}\n{measure} {arrow(task)}", values_in(name, measure)))
    drawing = Figure(figsize=(2.6 + 1.7 * len(panels), 1.1 + 0.26 * len(rows)), dpi=120, layout="constrained")
    axes = drawing.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    # A gap between the kinds.
    gap = 0.6 if len({row.kind for row in rows}) > 1 else 0
    heights = np.arange(len(rows)) + [gap * (row.kind == MASKED) for row in rows]
    base = next((row for row in rows if row.kind == RETRAINED and row.variant == table.baseline), None)
    for axis, (title, values_of) in zip(axes, panels, strict=True):
        for height, row in zip(heights, rows, strict=True):
            values = values_of(row)
            retrained = row.kind == RETRAINED
            colour = "C0" if retrained else "C1"
            axis.plot(values, [height] * len(values), "|", color=colour, ms=8, mew=1)
            style = {"color": colour, "mfc": colour if retrained else "white", "ms": 4.5, "lw": 1}
            std = statistics.stdev(values) if len(values) > 1 else math.nan
            axis.errorbar(statistics.fmean(values), height, xerr=std, fmt="o", **style)
        if base is not None:
            axis.axvline(statistics.fmean(values_of(base)), color="black", lw=0.8, ls=":")
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.margins(x=0.15)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(heights, [row.variant if row.kind == RETRAINED else f"{row.variant} (masked)" for row in rows])
    axes[0].invert_yaxis()
    drawing.supxlabel(
        f"filled: retrained, hollow: masked; dotted: {table.baseline}; ticks: seeds, bars: their std", fontsize=8
    )
    return drawing

"""The comparison's table: what each method reaches, and what it costs."""

import dataclasses
from collections.abc import Mapping

from sak import tables
from sak.metrics.interval import UNKNOWN, plus_minus
from sak.research.ablation.report import Table
from sak.research.ablation.report import as_json as of_metrics
from sak.research.adaptation.cost import Cost, Step
from sak.tasks import arrow

MB = 1e6


def as_json(table: Table, costs: Mapping[str, Cost]) -> dict:
    """The metrics as of an ablation, and ``costs``: {row: weights, steps}."""
    return {**of_metrics(table), "costs": {name: dataclasses.asdict(cost) for name, cost in costs.items()}}


def as_markdown(table: Table, costs: Mapping[str, Cost], steps: int) -> str:
    parts = [f"# Ways to use a frozen backbone: {table.config}"]
    if any(row.metrics for row in table.rows):
        parts += ["## What they reach", tables.markdown(_metrics(table))]
    parts += ["## What a step costs", tables.markdown(_costs(costs)), _notes(table, steps)]
    return "\n\n".join(parts) + "\n"


def _metrics(table: Table) -> list[list[str]]:
    header = ["method", "seeds", *(f"{name} {task.headline()[0]} {arrow(task)}" for name, task in table.tasks.items())]
    lines = [[*header, "Δm %", "paired Δm %", "finding"]]
    for row in table.rows:
        if not row.metrics:
            continue
        values = [
            plus_minus([found[name][task.headline()[0]] for found in row.metrics.values()], f".{task.digits}f")
            for name, task in table.tasks.items()
        ]
        paired = plus_minus(table.paired_gains(row), "+.2f")
        gains = plus_minus(table.gains(row), "+.2f")
        lines.append([row.variant, str(len(row.metrics)), *values, gains, paired, table.finding(row)])
    return lines


def _costs(costs: Mapping[str, Cost]) -> list[list[str]]:
    header = "method|trained beside heads|% of backbone|step s|cached s|peak MB|alone s|alone cached s|alone peak MB"
    lines = [header.split("|")]
    for name, cost in costs.items():
        steps = (cost.step, cost.cached, cost.step, cost.alone, cost.cached_alone, cost.alone)
        lines.append([name, f"{cost.trained:,}", f"{100 * cost.trained / cost.backbone:.2f}"])
        for step, what in zip(steps, ("s", "s", "MB", "s", "s", "MB"), strict=True):
            lines[-1].append(_shown(step, what))
    return lines


def _shown(step: Step | None, what: str) -> str:
    if step is None:
        return UNKNOWN
    return f"{step.seconds:.3f}" if what == "s" else f"{step.peak / MB:,.0f}"


def _notes(table: Table, steps: int) -> str:
    notes = [
        f"Step: the median of {steps} training steps on noise, with heads and losses, in seconds (on a CPU those of "
        "its cores, all together); cached: with the backbone's features at hand; peak: what the process had in memory "
        "at once, its libraries too (on a GPU: what was allocated). Alone: without heads, the method by itself. Each "
        "method was measured in a process of its own, one after another."
    ]
    if table.reference:
        notes.append(
            f"Δm: against the mean of `{table.baseline}` over its seeds; paired: minus its Δm with the same seed. "
            "±: half of the 95 % confidence interval of the mean over seeds."
        )
    if any(row.variant == "student" for row in table.rows):
        notes.append(
            "The student is a run of its own recipe, which also distils: its steps and its teachers differ from the "
            "others', and % of backbone is that of its stem."
        )
    notes += [f"{name} failed and is missing: {reason}" for name, reason in table.failed.items()]
    return "\n".join(f"- {note}" for note in notes)

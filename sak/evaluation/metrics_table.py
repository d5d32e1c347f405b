"""The metrics of a student as a table: on the console, and as ``results.md``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sak import tables
from sak.metrics import Metrics
from sak.student import Student
from sak.tasks import HIGHER, Task

BASELINE = "baseline (best constant)"  # title of the constant predictions' metrics


def rows(
    tasks: Mapping[str, Task], columns: Mapping[str, Metrics], gains: Mapping[str, float] | None = None
) -> list[tuple[str, ...]]:
    """A header, and a row per task and metric.

    Args:
        columns: {title: metrics}; a metric that one lacks is shown as "-".
        gains: {task: percent} of the headline metrics, as a further column.
    """
    table = [("task", "metric", *columns, *(["gain %"] if gains else []), "unit", "better is")]
    for name, task in tasks.items():
        for measure, direction in task.measures.items():
            values = [_number(column.get(name, {}).get(measure), task.digits) for column in columns.values()]
            if gains:
                values.append(f"{gains[name]:+.2f}" if measure == task.headline()[0] else "")
            table.append((name, measure, *values, task.units, "higher" if direction == HIGHER else "lower"))
    return table


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def console(tasks: Mapping[str, Task], metrics: Metrics, constants: Metrics) -> str:
    """What a finished run prints."""
    return tables.console(rows(tasks, {"student": metrics, BASELINE: constants}))


def markdown(
    name: str, tasks: Mapping[str, Task], metrics: Metrics, constants: Metrics, notes: Sequence[str] = ()
) -> str:
    """``results.md`` of a run: the table, what its columns mean, and a paragraph for each note."""
    lines = [
        f"# Results of {name}",
        "",
        tables.markdown(rows(tasks, {"student": metrics, BASELINE: constants})),
        "",
        f"*{BASELINE}*: the best that one and the same prediction for every pixel of every image reaches on the",
        "validation set; what lies beyond it was learnt.",
        *(["`edge` is evaluated under the protocol `sak`."] if "edge" in tasks else []),
        *(line for note in notes for line in ("", note)),
    ]
    return "\n".join(lines) + "\n"


def of_distillation(name: str, student: Student, steps: int, run: Path, notes: Sequence[str]) -> str:
    """``results.md`` of a run without a second stage."""
    lines = [
        f"# Results of {name}",
        "",
        f"Distilled from {', '.join(student.paths)} for {steps} steps, without the second stage: `student/` holds",
        "stem, paths and aligners, and no heads to evaluate. Train it on tasks with",
        "",
        f"    python tools/train.py CONFIG stages.distill.steps=0 student.weights={run}",
        *(line for note in notes for line in ("", note)),
    ]
    return "\n".join(lines) + "\n"

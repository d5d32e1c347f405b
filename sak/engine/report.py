"""The results of a run as tables for people."""

from collections.abc import Mapping

from sak.engine.evaluate import Metrics
from sak.tasks import HIGHER, Task

HEADER = ("task", "metric", "student", "best constant", "unit", "better is")


def rows(tasks: Mapping[str, Task], metrics: Metrics, constants: Metrics) -> list[tuple[str, ...]]:
    """One row per task and metric, as HEADER says."""
    return [
        (
            name,
            measure,
            f"{metrics[name][measure]:.2f}",
            f"{constants[name][measure]:.2f}",
            task.units,
            "higher" if direction == HIGHER else "lower",
        )
        for name, task in tasks.items()
        for measure, direction in task.measures.items()
    ]


def console(tasks: Mapping[str, Task], metrics: Metrics, constants: Metrics) -> str:
    """An aligned table."""
    table = [HEADER, *rows(tasks, metrics, constants)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADER))]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if column in (2, 3) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def markdown(name: str, tasks: Mapping[str, Task], metrics: Metrics, constants: Metrics) -> str:
    """``results.md``: the table and what its columns mean."""
    lines = [
        f"# Results of {name}",
        "",
        "| " + " | ".join(HEADER) + " |",
        "|---|---|---:|---:|---|---|",
        *("| " + " | ".join(row) + " |" for row in rows(tasks, metrics, constants)),
        "",
        "*best constant*: the best that one and the same prediction for every pixel of every image reaches on the",
        "validation set; what lies beyond it was learnt. `edge` is judged under the protocol `sak`.",
    ]
    return "\n".join(lines) + "\n"

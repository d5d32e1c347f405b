"""The best evaluated student of a run, as a bundle beside the last one.

What is on disk is the only record of it. An evaluation that a kill interrupted is made again when the run goes on, and
so is every evaluation since the last checkpoint: a resumed run ends with the same best student.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sak.bundles.bundle import save_bundle
from sak.errors import UserError
from sak.files import read_json
from sak.metrics import Metrics
from sak.student import Student
from sak.tasks import HIGHER, Task, find_metric

RECORD = "best.json"  # in the bundle: {"metric", "value", "step"}


def keep_best(
    directory: Path, metric: str, tasks: Mapping[str, Task], metrics: Metrics, student: Student, step: int
) -> None:
    """Write the student to ``directory`` if none before was as good in ``metric``."""
    name, measure = find_metric(metric, tasks, "stages.multitask.keep_best")
    value, before = metrics[name][measure], best(directory, metric)
    sign = 1 if tasks[name].measures[measure] == HIGHER else -1
    if math.isfinite(value) and (before is None or sign * value > sign * before["value"]):
        save_bundle(student, directory, record={RECORD: {"metric": metric, "value": value, "step": step}})


def best(directory: Path, metric: str) -> dict[str, Any] | None:
    """The record of the best student by this metric, or None."""
    file = directory / RECORD
    record = read_json(file, ("metric", "value", "step")) if file.is_file() else None
    if record and not all(isinstance(record[key], (int, float)) for key in ("value", "step")):
        raise UserError(f"{file} is corrupt (its value or step is no number): delete it, or restore it")
    return record if record and record["metric"] == metric else None

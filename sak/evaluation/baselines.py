"""Single-task baselines that Δm is measured against: published rows, or runs of one's own."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sak.data.description import Description
from sak.errors import UserError
from sak.metrics import Metrics
from sak.tasks import Task, headlines

PUBLISHED = Path(__file__).parents[1] / "metrics" / "published"


@dataclass
class Baseline:
    """
    Attributes:
        name: stands beside every Δm.
        source: where its figures are from.
        metrics: {task: {metric: value}}.
        dataset: the benchmark that it was measured on; None where its file does not say.
        boundaries: the protocol of its ``edge``; None where its file does not say.
    """

    name: str
    source: str
    metrics: Metrics
    dataset: str | None = None
    boundaries: str | None = None

    def check(self, tasks: Mapping[str, Task], boundaries: str, evaluated_on: Description) -> None:
        """
        Raises:
            UserError: results of these tasks cannot be compared with it.
        """
        if self.dataset not in (None, evaluated_on.benchmark):
            on = evaluated_on.benchmark or evaluated_on.title
            raise UserError(f"the baseline {self.name} is of {self.dataset}, but the student is evaluated on {on}")
        if "edge" in tasks and self.boundaries not in (None, boundaries):
            raise UserError(
                f"the boundaries of the baseline {self.name} were evaluated under the protocol {self.boundaries}, "
                f"which cannot be compared with {boundaries}: evaluate with --boundaries {self.boundaries}"
            )
        for task, (metric, _) in headlines(tasks).items():
            if metric not in self.metrics.get(task, {}):
                raise UserError(
                    f"the baseline {self.name} lacks {task}.{metric}; it has: {', '.join(self.metrics) or 'nothing'}; "
                    "a second --baseline can add what is missing"
                )
            if self.metrics[task][metric] == 0:
                raise UserError(f"the baseline {self.name} has 0 for {task}.{metric}, so no relative gain exists")


def published() -> dict[str, Path]:
    """{name: file} of the baselines that come with this package."""
    return {file.stem: file for file in sorted(PUBLISHED.glob("*.json"))}


def load(names: Sequence[str]) -> Baseline:
    """One baseline out of one or more, whose tasks add up.

    Args:
        names: each a published one's, a JSON file, or the directory of a finished run, whose ``metrics.json`` counts.

    Raises:
        UserError: one does not exist or holds no metrics, or two have the same task.
    """
    parts = [_read(name) for name in names]
    metrics: Metrics = {}
    owner: dict[str, str] = {}
    for part in parts:
        for task, values in part.metrics.items():
            if task in metrics:
                raise UserError(f"the baselines {owner[task]} and {part.name} both have {task}: leave one of them out")
            metrics[task], owner[task] = values, part.name

    def common(attribute: str) -> str | None:
        stated = {getattr(part, attribute) for part in parts} - {None}
        if len(stated) > 1:
            raise UserError(f"the baselines {' and '.join(names)} differ in {attribute}: {', '.join(sorted(stated))}")
        return next(iter(stated), None)

    return Baseline(
        " + ".join(part.name for part in parts),
        "; ".join(part.source for part in parts),
        metrics,
        common("dataset"),
        common("boundaries"),
    )


def _read(name: str) -> Baseline:
    known = published()
    path = Path(name) / "metrics.json" if Path(name).is_dir() else Path(name)
    path = known.get(name, path)
    if not path.is_file():
        if Path(name).is_dir():
            raise UserError(f"the baseline {name} holds no metrics.json: it is no finished run")
        raise UserError(f"there is no baseline {name}: it is no file or run, and published ones are {', '.join(known)}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"the baseline {name} is no JSON file ({error})") from None
    if name in known:
        return Baseline(**content)
    if not _is_metrics(content):
        raise UserError(f"the baseline {name} is not of the form of metrics.json, {{task: {{metric: finite number}}}}")
    return Baseline(name, str(path), content)


def _is_metrics(content: object) -> bool:
    return isinstance(content, dict) and all(
        isinstance(values, dict)
        and all(type(value) in (int, float) and math.isfinite(value) for value in values.values())
        for values in content.values()
    )

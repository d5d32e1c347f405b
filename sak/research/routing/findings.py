"""What an inspection of routers inspection, as numbers, and as tables for people.

Legend: N images, S sources.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sak import tables
from sak.evaluation.subject import Subject
from sak.metrics import Metrics
from sak.research.routing.history import History
from sak.research.routing.statistics import RouterStatistics
from sak.tasks import Task

LEANING = 8  # images of the contact sheet for each source


@dataclass
class Inspection:
    """What was inspection.

    Attributes:
        title: which images of what.
        names: of the N images.
        weights: {task: [per level (N, S)]}.
        routers: {task: {block: statistics}}.
        information: {task: {block: {"image", "class", "class_by_chance", "token": bits}}}; what does not exist is left
            out: the class without labels, the token where a router weighs whole images.
        warnings: a sentence each.
        history: from the run's events, on its validation set; empty where there are none.
        history_training: the same on its training batches.
        tasks: that were evaluated; empty without labels.
        metrics: with all sources; empty without labels.
        without: {source: metrics without it}; empty where they were not asked for.
    """

    title: str
    names: list[str]
    weights: dict[str, list[Tensor]]
    routers: dict[str, dict[int, RouterStatistics]]
    information: dict[str, dict[int, dict[str, float]]]
    warnings: list[str]
    history: History
    history_training: History
    tasks: Mapping[str, Task]
    metrics: Metrics
    without: dict[str, Metrics]

    @property
    def mean_weights(self) -> Tensor:
        """(N, S): over tasks and levels."""
        return torch.stack([level for levels in self.weights.values() for level in levels]).mean(0)

    def overall(self, task: str) -> list[float]:
        """(S,): the mean weights of a task over images and levels."""
        return torch.stack([router.mean for router in self.routers[task].values()]).mean(0).tolist()

    @property
    def changes(self) -> dict[str, dict[str, float]]:
        """{source: {task: change of its headline metric without the source}}"""
        return {source: headline_change(self.tasks, self.metrics, metrics) for source, metrics in self.without.items()}

    def relative_change(self, source: str, task: str) -> float:
        """`changes` in percent of the headline metric with all sources; not a number where that is 0."""
        whole = self.metrics[task][self.tasks[task].headline()[0]]
        return 100 * self.changes[source][task] / whole if whole else float("nan")

    def leaning(self, source: int) -> list[int]:
        """The images that give a source the largest weights, the largest first."""
        return self.mean_weights[:, source].argsort(descending=True, stable=True)[:LEANING].tolist()


def headline_change(tasks: Mapping[str, Task], whole: Metrics, masked: Metrics) -> dict[str, float]:
    """{task: its headline metric without a source minus that with all}, in the metric's units, negated where less is
    better: below 0 where the source is missed, above 0 where the student does better without it."""
    change = {}
    for task, metrics in whole.items():
        metric, higher_is_better = tasks[task].headline()
        difference = masked[task][metric] - metrics[metric]
        change[task] = difference if higher_is_better else -difference
    return change


def console(inspection: Inspection, sources: Sequence[str], chosen: Mapping[str, Task]) -> list[str]:
    """Both tables, and the warnings, line by line."""
    blocks = [f"block {block}" for block in next(iter(inspection.routers.values()))]
    changes = inspection.changes
    measured = ("without it", "unit") if changes else ()
    rows: list[tuple[str, ...]] = [("task", "source", *blocks, "all levels", *measured)]
    for task, levels in inspection.routers.items():
        for number, source in enumerate(sources):
            cells = [f"{router.mean[number]:.3f} ±{router.spread[number]:.3f}" for router in levels.values()]
            effect = (f"{changes[source][task]:+.{chosen[task].digits}f}", chosen[task].units) if changes else ()
            rows.append((task, source, *cells, f"{inspection.overall(task)[number]:.3f}", *effect))
    kinds = list(next(iter(next(iter(inspection.information.values())).values())))
    bits: list[tuple[str, ...]] = [("task", "block", "entropy", "of mean", *(kind.replace("_", " ") for kind in kinds))]
    for task, levels in inspection.routers.items():
        for block, router in levels.items():
            information = [f"{inspection.information[task][block][kind]:.4f}" for kind in kinds]
            bits.append((task, str(block), f"{router.entropy:.3f}", f"{router.entropy_of_mean:.3f}", *information))
    lines = [f"weights, mean ± spread over {inspection.title}", "", tables.console(rows), ""]
    if changes:
        lines += [
            "without it: change of the task's headline metric when the source is knocked out; below 0 is worse",
            "",
        ]
    lines += [
        f"in bits, of at most {np.log2(len(sources)):.3f}: entropy of the weights, and what image, class or token say "
        "about the choice",
        "",
        tables.console(bits),
        "",
    ]
    return lines + [f"warning: {sentence}" for sentence in inspection.warnings]


def as_json(inspection: Inspection, subject: Subject) -> dict[str, object]:
    """All numbers but the weights of single images, by name."""
    sources = subject.student.sources
    mean_weights = inspection.mean_weights

    def by_source(values: Tensor) -> dict[str, float]:
        return dict(zip(sources, values.tolist(), strict=True))

    return {
        "student": subject.name,
        "images": inspection.title,
        "sources": list(sources),
        "levels": list(subject.student.levels),
        "routers": {
            task: {
                block: {
                    "mean": by_source(router.mean),
                    "spread": by_source(router.spread),
                    "smallest": by_source(router.smallest),
                    "largest": by_source(router.largest),
                    "leads": by_source(router.leads),
                    "entropy": router.entropy,
                    "entropy_of_mean": router.entropy_of_mean,
                    "information": inspection.information[task][block],
                }
                for block, router in levels.items()
            }
            for task, levels in inspection.routers.items()
        },
        "warnings": inspection.warnings,
        "leaning": {
            source: [
                {"image": inspection.names[index], "weight": mean_weights[index, number].item()}
                for index in inspection.leaning(number)
            ]
            for number, source in enumerate(sources)
        },
        "history": inspection.history,
        "history_training": inspection.history_training,
        "metrics": inspection.metrics,
        "without": inspection.without,
        "change": inspection.changes,
    }

"""Δm: the mean relative gain of a multi-task model over single-task baselines (Maninis et al., arXiv 1904.08918)."""

from collections.abc import Mapping

from sak.errors import UserError
from sak.metrics import Metrics

Headlines = Mapping[str, tuple[str, bool]]  # {task: (its headline metric, whether more of it is better)}


def gains(results: Metrics, baseline: Metrics, headlines: Headlines) -> dict[str, float]:
    """{task: percent}: (M - M_baseline) / M_baseline of each task of `results`, negated where less is better.

    Raises:
        UserError: if a task is unknown, or its headline metric is missing, or 0 in the baseline.
    """
    relative = {}
    for task in results:
        if task not in headlines:
            raise UserError(f"There is no headline metric for the task {task!r}: known are {', '.join(headlines)}.")
        metric, higher_is_better = headlines[task]
        if metric not in results[task]:
            raise UserError(f"The results lack {task}.{metric}, which the relative gain of {task} needs.")
        if metric not in baseline.get(task, {}):
            raise UserError(f"The baseline lacks {task}.{metric}, which the relative gain of {task} needs.")
        reference = baseline[task][metric]
        if reference == 0:
            raise UserError(f"The baseline's {task}.{metric} is 0, so no relative gain exists: check the baseline.")
        gain = 100 * (results[task][metric] - reference) / reference
        relative[task] = gain if higher_is_better else -gain
    return relative


def delta_m(results: Metrics, baseline: Metrics, headlines: Headlines) -> float:
    """Percent: the mean of `gains` over the tasks of `results`.

    Only numbers against the same baseline can be compared: name it beside them.

    Raises:
        UserError: as `gains`, or if there are no results.
    """
    if not results:
        raise UserError("There are no results to compare with the baseline: evaluate at least one task.")
    relative = gains(results, baseline, headlines)
    return sum(relative.values()) / len(relative)

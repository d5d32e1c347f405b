"""Δm: the mean relative gain of a multi-task model over single-task baselines (Maninis et al., arXiv 1904.08918)."""

from collections.abc import Mapping

from sak.errors import UserError

# Each task's headline metric, and whether more of it is better.
HEADLINE = {
    "semseg": ("miou", True),
    "human_parts": ("miou", True),
    "saliency": ("max_f", True),
    "normals": ("mean_error", False),
    "edge": ("ods_f", True),
    "depth": ("rmse", False),
}

Results = Mapping[str, Mapping[str, float]]  # {task: {metric: value}}, as in metrics.json


def gains(results: Results, baseline: Results) -> dict[str, float]:
    """{task: percent}: (M - M_baseline) / M_baseline of each task of `results`, negated where less is better.

    Raises:
        UserError: if a task is unknown, or its headline metric is missing, or 0 in the baseline.
    """
    relative = {}
    for task in results:
        if task not in HEADLINE:
            raise UserError(f"There is no headline metric for the task {task!r}: known are {', '.join(HEADLINE)}.")
        metric, higher_is_better = HEADLINE[task]
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


def delta_m(results: Results, baseline: Results) -> float:
    """Percent: the mean of `gains` over the tasks of `results`.

    Only numbers against the same baseline can be compared: name it beside them.

    Raises:
        UserError: as `gains`, or if there are no results.
    """
    if not results:
        raise UserError("There are no results to compare with the baseline: evaluate at least one task.")
    relative = gains(results, baseline)
    return sum(relative.values()) / len(relative)

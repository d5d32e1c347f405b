"""Figures of a reproduction: what each student gains in each task, and what labels are worth."""

import statistics

import numpy as np
from matplotlib.figure import Figure

from sak.metrics.interval import half_width
from sak.plotting import heat_map
from sak.research.reproduction.results import Results, title
from sak.research.reproduction.study import FROZEN, LABELS, NO_TEACHERS, SAK, SHARES, SINGLE_TASK
from sak.tasks import arrow


def bias_figure(results: Results) -> Figure | None:
    """Relative gains by task, students in rows: frozen teachers under heads of their own, then trained students.

    None before there is anything to compare with.
    """
    rows = {
        name: results.gains_of_tasks(name) for name in results.students if LABELS not in name and name != SINGLE_TASK
    }
    rows = {name: found for name, found in rows.items() if found}
    if not rows:
        return None
    ordered = sorted(rows, key=lambda name: not name.startswith(FROZEN))
    tasks = list(rows[ordered[0]])
    values = np.array([[rows[name][task] for task in tasks] for name in ordered])
    limit = max(1.0, float(np.abs(values).max()))
    figure = Figure(figsize=(2.4 + 0.8 * len(tasks), 1.0 + 0.3 * len(ordered)), dpi=100, layout="constrained")
    axis = figure.subplots()
    text = [[f"{value:+.1f}" for value in row] for row in values]
    columns = [f"{task} {arrow(results.tasks[task])}" for task in tasks]
    heat_map(
        axis, values, text, [title(name) for name in ordered], columns,
        "gain over single-task students, %",
        (-limit, limit), "RdBu",
    )  # fmt: skip
    return figure


def efficiency_figure(results: Results) -> Figure | None:
    """Δm over the share of labels, with and without teachers; None before two shares of one of them are finished."""
    figure = Figure(figsize=(4.6, 3.2), dpi=100, layout="constrained")
    axis = figure.subplots()
    drawn = 0
    for whole, before, label in ((SAK, "", "SAK"), (NO_TEACHERS, f"{NO_TEACHERS}-", "no teachers, same cost")):
        names = {share: f"{before}{LABELS}{share}" for share in SHARES} | {100: whole}
        found = {share: list(results.gains(name).values()) for share, name in names.items()}
        found = {share: values for share, values in found.items() if values}
        if len(found) < 2:
            continue
        drawn += 1
        means = [statistics.fmean(values) for values in found.values()]
        bars = [half_width(values) or 0.0 for values in found.values()]
        axis.errorbar(list(found), means, yerr=bars, marker="o", ms=4, lw=1.2, capsize=3, label=label)
    if not drawn:
        return None
    axis.axhline(0, color="black", lw=0.8, ls=":")
    axis.set_xticks([*SHARES, 100])
    axis.set_xlabel("share of the labels, %")
    axis.set_ylabel("Δm, %")
    axis.legend(fontsize=8, frameon=False)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    return figure

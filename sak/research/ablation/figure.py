"""An ablation's results as a figure."""

import statistics
from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from sak.metrics import Metrics
from sak.metrics.interval import NOTHING, finding, half_width
from sak.research.ablation.report import KINDS, MASKED, RETRAINED, Table, short_names
from sak.tasks import arrow


def figure(table: Table) -> Figure:
    """Δm and each headline metric, a line for each row: seeds as ticks, their mean as a point; filled: retrained.

    Bars are 95 % intervals of the means; pale is what is no finding, by the differences in pairs of one seed.
    """
    rows, names = [row for kind in KINDS for row in table.of(kind)], short_names(table)

    def value_in(task: str, measure: str) -> Callable[[Metrics], float]:
        return lambda found: found[task][measure]

    panels: list[tuple[str, Callable[[Metrics], float]]] = []
    if table.reference:
        panels.append(("Δm, %" + "\nin pairs of one seed" * table.several_seeds, table.gain))
    for name, task in table.tasks.items():
        measure = task.headline()[0]
        panels.append((f"{name} {arrow(task)}\n{measure}, {task.units}", value_in(name, measure)))
    drawing = Figure(figsize=(2.0 + 1.25 * len(panels), 1.3 + 0.24 * len(rows)), dpi=100, layout="constrained")
    axes = drawing.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    # A gap between the kinds.
    gap = 0.6 if len({row.kind for row in rows}) > 1 else 0
    heights = np.arange(len(rows)) + [gap * (row.kind == MASKED) for row in rows]
    base = table.baseline_row
    for axis, (title, value) in zip(axes, panels, strict=True):
        for height, row in zip(heights, rows, strict=True):
            differences = table.paired(row, value)
            in_pairs = value == table.gain and table.several_seeds
            values = differences if in_pairs else [value(found) for found in row.metrics.values()]
            if not values:
                continue  # no seed of it is one of the baseline's
            retrained = row.kind == RETRAINED
            colour = "C0" if retrained else "C1"
            pale = row is not base and finding(differences) == NOTHING
            style = {"color": colour, "alpha": 0.35 if pale else 1}
            axis.plot(values, [height] * len(values), "|", ms=8, mew=1, **style)
            axis.errorbar(
                statistics.fmean(values), height, xerr=half_width(values), fmt="o", ms=4.5, lw=1,
                mfc=colour if retrained else "white", **style,
            )  # fmt: skip
        if base is not None:
            axis.axvline(statistics.fmean(map(value, base.metrics.values())), color="black", lw=0.8, ls=":")
        axis.set_title(title, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.locator_params(axis="x", nbins=3)
        axis.margins(x=0.15)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    labels = [names[row.variant] + ("" if row.kind == RETRAINED else " (masked)") for row in rows]
    axes[0].set_yticks(heights, labels)
    axes[0].invert_yaxis()
    chance = (
        "bars: 95 % interval of the mean; pale: no finding, the interval of the difference in pairs of one seed holds 0"
        if table.several_seeds
        else "one seed: no difference is a finding"
    )
    dotted = names.get(table.baseline, table.baseline)
    drawing.supxlabel(f"filled: retrained, hollow: masked; ticks: seeds; dotted: {dotted}\n{chance}", fontsize=7)
    return drawing

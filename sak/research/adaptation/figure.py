"""Accuracy against each cost, with the methods that no other beats in both."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

from sak.metrics.interval import half_width
from sak.research.ablation.report import Table
from sak.research.adaptation.cost import Cost

PANELS: tuple[tuple[str, Callable[[Cost], float]], ...] = (
    ("trained weights beside the heads", lambda cost: cost.trained),
    ("seconds of a training step", lambda cost: cost.step.seconds),
    ("peak memory of training, MB", lambda cost: cost.step.peak / 1e6),
)
STUDENT = "student"  # which is in the table alone: its recipe, and its scale, are others
MARKERS = "osD^vP*Xh"
LINEAR = 1000  # up to this number of weights the axis is linear: the linear probe has none


def figure(table: Table, costs: Mapping[str, Cost]) -> Figure:
    """Δm against trained weights, step time and peak memory; the line joins the Pareto front."""
    drawing = Figure(figsize=(10.2, 3.6), dpi=100, layout="constrained")
    axes = drawing.subplots(1, len(PANELS), sharey=True)
    rows = [row for row in table.rows if row.metrics and row.variant != STUDENT]
    for axis, (title, cost_of) in zip(axes, PANELS, strict=True):
        points = []
        for number, row in enumerate(rows):
            gains, cost = table.gains(row), cost_of(costs[row.variant])
            mean = statistics.fmean(gains)
            points.append((cost, mean))
            style = {"color": f"C{number}", "marker": MARKERS[number % len(MARKERS)], "label": row.variant}
            axis.errorbar(cost, mean, yerr=half_width(gains), ls="", ms=6, lw=1, **style)
        front = pareto(points)
        axis.plot(*zip(*front, strict=True), color="grey", lw=0.9, ls="--", zorder=0)
        if cost_of is PANELS[0][1]:
            axis.set_xscale("symlog", linthresh=LINEAR)
            axis.set_xticks([0, *(10**power for power in range(3, 10) if 10**power <= 2 * max(points)[0])])
        axis.margins(x=0.16, y=0.1)
        axis.set_xlabel(title, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(f"Δm against {table.baseline}, %", fontsize=8)
    drawing.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    drawing.suptitle("dashed: no other method is better and cheaper; bars: 95 % interval over seeds", fontsize=8)
    return drawing


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, value) those that none of the others is cheaper than and as good, or better than at the same cost."""
    front: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or value > front[-1][1]:
            front.append((cost, value))
    return front

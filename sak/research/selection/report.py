"""A selection of teachers as tables and as a figure."""

import statistics
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sak import tables
from sak.metrics.interval import CONFIDENCE, NOTHING, finding, half_width, plus_minus
from sak.research.selection.game import DELTA_M
from sak.research.selection.shapley import Shapley


@dataclass
class Selection:
    """
    Attributes:
        value: ``delta_m`` or TASK.METRIC.
        label: of an axis: what the value is, in which unit.
        students: that the values are means over.
        images: of validation.
        none, all: the value of the stem alone, and of all teachers.
        shapley: of the mean over students.
        of_students: {teacher: its Shapley value by each student}.
        over_students: {teacher: mean, std and half of the 95 % interval of these}, as ``interval.spread`` has it.
        greedy: [(teacher, value with it)].
        greedy_of_students: [values of each student]: of the stem alone, then with the teachers of ``greedy``.
        pairs: {subset: (masked value, retrained value)}, of the subsets that an ablation has retrained.
        correlation: Spearman's, over ``pairs``.
        retrained: Shapley values of retrained students; None unless there is one of every subset.
    """

    value: str
    label: str
    students: list[str]
    images: int
    none: float
    all: float
    shapley: Shapley
    of_students: dict[str, list[float]]
    over_students: dict[str, dict | None]
    greedy: list[tuple[str, float]]
    greedy_of_students: list[list[float]]
    pairs: dict[str, tuple[float, float]]
    correlation: float | None
    retrained: dict[str, float] | None


def report(selection: Selection) -> str:
    """As Markdown that reads well on a terminal too."""
    what = "Δm in percent against the unmasked student" if selection.value == DELTA_M else selection.label
    intervals, several = selection.shapley.intervals, len(selection.students) > 1
    kind = (
        f"exact, over all {selection.shapley.coalitions} coalitions"
        if intervals is None
        else f"sampled by antithetic pairs of orders over {selection.shapley.coalitions} coalitions"
    )
    rows = [["teacher", "Shapley value"]]
    rows[0] += ["± of sampling"] * (intervals is not None)
    rows[0] += ["± over students", "std over students", "finding"] * several
    rows[0] += ["of retrained students"] * (selection.retrained is not None)
    for teacher in sorted(selection.shapley.values, key=selection.shapley.values.__getitem__, reverse=True):
        row = [teacher, f"{selection.shapley.values[teacher]:+.3f}"]
        row += [f"{intervals[teacher]:.3f}"] if intervals is not None else []
        if several and (over := selection.over_students[teacher]):
            row += [f"{over['ci95']:.3f}", f"{over['std']:.3f}", finding(over["values"])]
        rows.append(row + ([f"{selection.retrained[teacher]:+.3f}"] if selection.retrained is not None else []))
    steps = [["greedy", "added", "value"]]
    for number, values in enumerate(selection.greedy_of_students):
        added = selection.greedy[number - 1][0] if number else "the stem alone"
        steps.append([str(number), added, plus_minus(values, "+.3f")])
    lines = [
        f"Value: {what}; more is better. Measured on {selection.images} validation images with masked students of "
        f"{', '.join(selection.students)}.",
        f"Shapley values ({kind}) sum to v(all) - v(stem alone) = {selection.all - selection.none:+.3f}.",
    ]
    if several or intervals is not None:
        lines.append(
            f"±: half of the {CONFIDENCE:.0%} confidence interval, Student's t"
            + (f"; finding: `{NOTHING}` where that over students holds 0." if several else ".")
        )
    lines += ["", tables.markdown(rows), "", tables.markdown(steps), ""]
    if selection.correlation is not None:
        lines.append(
            f"Masked against retrained students: Spearman's ρ = {selection.correlation:+.2f} over "
            f"n = {len(selection.pairs)} subsets ({', '.join(selection.pairs)})."
        )
    else:
        count = len(selection.pairs)
        lines.append(f"Not compared with retrained students: there are {count} subsets of them (3 needed).")
    return "\n".join(lines)


def figure(selection: Selection) -> Figure:
    """Shapley values, the greedy curve, and masked against retrained students if there are.

    Dots are of each student, bars 95 % intervals over them; of one student, those of the sampling.
    """
    shapley, several = selection.shapley, len(selection.students) > 1
    drawing = Figure(figsize=(3.6 + 2.7 * (1 + bool(selection.pairs)), 3.2), dpi=100, layout="constrained")
    bars, curve, *scatter = drawing.subplots(1, 2 + bool(selection.pairs))
    names = sorted(shapley.values, key=shapley.values.__getitem__, reverse=True)
    bars.bar(names, [shapley.values[name] for name in names], color="C0", alpha=0.7, width=0.6)
    if several:
        _spread(bars, [selection.of_students[name] for name in names])
    elif shapley.intervals is not None:
        halves = [shapley.intervals[name] for name in names]
        bars.errorbar(range(len(names)), [shapley.values[name] for name in names], halves, fmt="none", ecolor="black",
                      capsize=3, lw=1)  # fmt: skip
    bars.axhline(0, color="black", lw=0.8)
    bars.set_title("Shapley value", fontsize=9)
    steps = ["stem", *(f"+{name}" for name, _ in selection.greedy)]
    curve.plot(steps, [selection.none, *(value for _, value in selection.greedy)], "o-", color="C1")
    if several:
        _spread(curve, selection.greedy_of_students)
    curve.set_title("greedy forward selection", fontsize=9)
    for axis in (bars, curve):
        axis.set_ylabel(selection.label, fontsize=8)
        axis.tick_params(axis="x", rotation=25)
    for axis in scatter:
        points = np.array(list(selection.pairs.values()))
        axis.plot(points[:, 0], points[:, 1], "o", color="C2")
        for name, point in selection.pairs.items():
            axis.annotate(name, point, fontsize=6, xytext=(3, 3), textcoords="offset points")
        rho = "" if selection.correlation is None else f": ρ = {selection.correlation:+.2f}, n = {len(points)}"
        axis.set_title(f"subsets{rho}", fontsize=9)
        axis.set_xlabel(f"masked, {selection.label}", fontsize=8)
        axis.set_ylabel(f"retrained, {selection.label}", fontsize=8)
        axis.margins(0.2)
    for axis in drawing.axes:
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    if several:
        drawing.supxlabel(
            f"dots: each of {len(selection.students)} students; bars: 95 % interval over them", fontsize=7
        )
    elif shapley.intervals is not None:
        drawing.supxlabel("bars: 95 % interval of the sampling, of one student", fontsize=7)
    return drawing


def _spread(axis: Axes, values: list[list[float]]) -> None:
    """At each place the values of students as dots, and the interval of their mean."""
    for place, of_students in enumerate(values):
        axis.plot([place + 0.15] * len(of_students), of_students, "k.", ms=4)
        axis.errorbar(place, statistics.fmean(of_students), half_width(of_students), fmt="none", ecolor="black",
                      capsize=3, lw=1)  # fmt: skip

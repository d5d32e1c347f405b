"""Which of a trained student's teachers are worth having, by masked students, and whether retrained ones agree."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sak import data, tables
from sak.bundles.build import build_tasks
from sak.errors import UserError
from sak.evaluation.distributed import build_accelerator
from sak.evaluation.masking import MaskedStudents, teachers_of
from sak.evaluation.subject import open_subject
from sak.files import write_json, write_text
from sak.metrics import Metrics
from sak.plotting import save
from sak.research.ablation.report import RETRAINED
from sak.research.ablation.variants import subset_name
from sak.research.selection.game import (
    DELTA_M,
    MaskedGame,
    some_images,
    tasks_of_value,
    worth,
)
from sak.research.selection.shapley import (
    CONFIDENCE,
    Coalition,
    Shapley,
    all_coalitions,
    exact_shapley,
    greedy,
    rank_correlation,
    shapley,
)
from sak.tasks import Task


@dataclass
class Selection:
    """
    Attributes:
        value: ``delta_m`` or TASK.METRIC.
        students: that the values are means over.
        images: of validation.
        none, all: the value of the stem alone, and of all teachers.
        shapley: of the mean over students.
        of_students: {teacher: its Shapley value by each student}.
        greedy: [(teacher, value with it)].
        pairs: {subset: (masked value, retrained value)}, of the subsets that an ablation has retrained.
        correlation: Spearman's, over ``pairs``.
        retrained: Shapley values of retrained students; None unless there is one of every subset.
    """

    value: str
    students: list[str]
    images: int
    none: float
    all: float
    shapley: Shapley
    of_students: dict[str, list[float]]
    greedy: list[tuple[str, float]]
    pairs: dict[str, tuple[float, float]]
    correlation: float | None
    retrained: dict[str, float] | None


def select(
    students: Sequence[str],
    output: Path,
    value: str = DELTA_M,
    images: int | None = None,
    pairs: int = 20,
    seed: int = 0,
    root: str | None = None,
    ablation: Path | None = None,
    measured: Path | None = None,
) -> Selection:
    """Judge masked students, write ``selection.md``, ``.json`` and ``.png`` to `output`, and print the tables.

    Args:
        students: runs or bundles with the same teachers; a coalition's value is the mean over them.
        value: ``delta_m`` (against each unmasked student) or TASK.METRIC, on the validation set.
        images: so many, spread over the validation set; None: all.
        pairs, seed: of sampled orders, where there are too many teachers for all coalitions.
        root: of the data set, where a bundle does not say.
        measured: directory that keeps what was measured of masked students; None: ``output/masked``.
        ablation: directory with the ``ablation.json`` whose retrained students the values are compared with.

    Raises:
        UserError: a student is unfinished or has no teachers to choose among, they have different ones, or there is no
            such value.
    """
    subjects = [open_subject(student, root=root) for student in students]
    teachers = teachers_of(subjects[0])
    for subject in subjects[1:]:
        if teachers_of(subject) != teachers:
            names = f"{subject.name} and {subjects[0].name}"
            raise UserError(f"{names} have different teachers: choose among one committee")
    chosen = tasks_of_value(value, build_tasks(subjects[0].data))
    part = ("" if value == DELTA_M else f"-{next(iter(chosen))}") + ("" if images is None else f"-{images}-images")
    games = []
    for subject in subjects:
        dataset = some_images(data.build(subject.data, "val"), images)
        file = (measured or output / "masked") / f"{Path(subject.name).name}{part}.json"
        masked = MaskedStudents(subject, chosen, dataset, build_accelerator(subject.precision), file)
        games.append(MaskedGame(masked, value))

    def mean(coalitions: Sequence[Coalition]) -> list[float]:
        return [statistics.fmean(values) for values in zip(*(game(coalitions) for game in games), strict=True)]

    found = shapley(teachers, mean, pairs, seed)
    each = [shapley(teachers, game, pairs, seed).values for game in games]
    retrained = _retrained(ablation, value, chosen, teachers) if ablation else {}
    compared = dict(zip(retrained, zip(mean(list(retrained)), retrained.values(), strict=True), strict=True))
    none, everyone = mean([frozenset(), frozenset(teachers)])
    selection = Selection(
        value,
        [subject.name for subject in subjects],
        len(dataset),
        none,
        everyone,
        found,
        {teacher: [values[teacher] for values in each] for teacher in teachers},
        greedy(teachers, mean),
        {subset_name([t for t in teachers if t in subset]): pair for subset, pair in compared.items()},
        rank_correlation(*zip(*compared.values(), strict=True)) if compared else None,
        _shapley_of(retrained, teachers),
    )
    save(figure(selection), output / "selection.png")
    write_json(output / "selection.json", asdict(selection))
    write_text(
        output / "selection.md", f"# Selection of teachers\n\n{report(selection)}\n\n![selection](selection.png)\n"
    )
    print(report(selection))
    return selection


def _retrained(
    ablation: Path, value: str, chosen: Mapping[str, Task], teachers: Sequence[str]
) -> dict[Coalition, float]:
    """{subset: the value of the mean metrics of its retrained students}, relative to those with all teachers."""
    rows = json.loads((ablation / "ablation.json").read_text(encoding="utf-8"))["rows"]
    metrics: dict[Coalition, Metrics] = {
        frozenset(row["teachers"]): {
            task: {name: figures["mean"] for name, figures in row["metrics"][task].items()} for task in chosen
        }
        for row in rows
        if row["kind"] == RETRAINED and row["teachers"] is not None and set(row["teachers"]) <= set(teachers)
    }
    reference = metrics.get(frozenset(teachers))
    if reference is None:
        return {}
    return {subset: worth(found, value, reference, chosen) for subset, found in metrics.items()}


def _shapley_of(values: Mapping[Coalition, float], teachers: Sequence[str]) -> dict[str, float] | None:
    if any(coalition not in values for coalition in all_coalitions(teachers)):
        return None
    return exact_shapley(teachers, lambda coalitions: [values[c] for c in coalitions]).values


def report(selection: Selection) -> str:
    """As Markdown that reads well on a terminal too."""
    what = "Δm in percent against the unmasked student" if selection.value == DELTA_M else selection.value
    kind = (
        f"exact, over all {selection.shapley.coalitions} coalitions"
        if selection.shapley.intervals is None
        else f"sampled by antithetic pairs of orders over {selection.shapley.coalitions} coalitions, "
        f"± half of the {CONFIDENCE:.0%} confidence interval of the sampling"
    )
    rows = [["teacher", "Shapley value"]]
    spread = len(selection.students) > 1
    rows[0] += ["std over students"] * spread + ["of retrained students"] * (selection.retrained is not None)
    for teacher in sorted(selection.shapley.values, key=selection.shapley.values.__getitem__, reverse=True):
        intervals = selection.shapley.intervals
        half = "" if intervals is None else f" ± {intervals[teacher]:.3f}"
        row = [teacher, f"{selection.shapley.values[teacher]:+.3f}{half}"]
        row += [f"{statistics.stdev(selection.of_students[teacher]):.3f}"] if spread else []
        rows.append(row + ([f"{selection.retrained[teacher]:+.3f}"] if selection.retrained is not None else []))
    steps = [["greedy", "added", "value"], ["0", "the stem alone", f"{selection.none:+.3f}"]]
    steps += [[str(n), teacher, f"{value:+.3f}"] for n, (teacher, value) in enumerate(selection.greedy, start=1)]
    lines = [
        f"Value: {what}; more is better. Measured on {selection.images} validation images with masked students of "
        f"{', '.join(selection.students)}.",
        f"Shapley values ({kind}) sum to v(all) - v(stem alone) = {selection.all - selection.none:+.3f}.",
        "",
        tables.markdown(rows),
        "",
        tables.markdown(steps),
        "",
    ]
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
    """Shapley values (dots: of each student), the greedy curve, and masked against retrained students if there are."""
    drawing = Figure(figsize=(4.2 + 3.0 * (1 + bool(selection.pairs)), 3.2), dpi=120, layout="constrained")
    bars, curve, *scatter = drawing.subplots(1, 2 + bool(selection.pairs))
    names = sorted(selection.shapley.values, key=selection.shapley.values.__getitem__, reverse=True)
    values = [selection.shapley.values[name] for name in names]
    errors = None if selection.shapley.intervals is None else [selection.shapley.intervals[name] for name in names]
    bars.bar(names, values, yerr=errors, capsize=3, color="C0", alpha=0.8, width=0.6)
    if len(selection.students) > 1:
        for place, name in enumerate(names):
            bars.plot([place + 0.15] * len(selection.students), selection.of_students[name], "k.", ms=4)
    bars.axhline(0, color="black", lw=0.8)
    unit = "Δm, %" if selection.value == DELTA_M else selection.value
    bars.set_title("Shapley value" + ("" if errors is None else f", {CONFIDENCE:.0%} interval"), fontsize=9)
    bars.set_ylabel(unit, fontsize=8)
    steps = ["stem", *(f"+{name}" for name, _ in selection.greedy)]
    curve.plot(steps, [selection.none, *(value for _, value in selection.greedy)], "o-", color="C1")
    curve.set_title("greedy forward selection", fontsize=9)
    for axis in scatter:
        points = np.array(list(selection.pairs.values()))
        axis.plot(points[:, 0], points[:, 1], "o", color="C2")
        for name, point in selection.pairs.items():
            axis.annotate(name, point, fontsize=6, xytext=(3, 3), textcoords="offset points")
        rho = "" if selection.correlation is None else f": ρ = {selection.correlation:+.2f}, n = {len(points)}"
        axis.set_title(f"subsets{rho}", fontsize=9)
        axis.set_xlabel(f"masked, {unit}", fontsize=8)
        axis.set_ylabel(f"retrained, {unit}", fontsize=8)
        axis.margins(0.2)
    for axis in drawing.axes:
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in (bars, curve):
        axis.tick_params(axis="x", rotation=25)
    return drawing

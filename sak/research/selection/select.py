"""Which of a trained student's teachers are worth having, by masked students, and whether retrained ones agree."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from sak import data
from sak.bundles.build import build_tasks
from sak.errors import UserError
from sak.evaluation.distributed import build_accelerator
from sak.evaluation.masking import MaskedStudents, teachers_of
from sak.evaluation.subject import check_output, open_subject
from sak.files import read_json, write_json, write_text
from sak.metrics import Metrics
from sak.metrics.interval import spread
from sak.plotting import save
from sak.research.ablation.report import RETRAINED
from sak.research.ablation.variants import subset_name
from sak.research.selection.game import (
    DELTA_M,
    MaskedGame,
    some_images,
    tasks_of_value,
    value_label,
    worth,
)
from sak.research.selection.report import Selection, figure, report
from sak.research.selection.shapley import (
    Coalition,
    all_coalitions,
    exact_shapley,
    greedy,
    rank_correlation,
    shapley,
)
from sak.tasks import Task


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
    """Evaluate masked students, write ``selection.md``, ``.json`` and ``.png`` to `output`, and print the tables.

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
    check_output(output)
    subjects = [open_subject(student, root=root) for student in students]
    teachers = teachers_of(subjects[0])
    for subject in subjects[1:]:
        if teachers_of(subject) != teachers:
            names = f"{subject.name} and {subjects[0].name}"
            raise UserError(f"{names} have different teachers: choose among one committee")
    chosen = tasks_of_value(value, build_tasks(subjects[0].data))
    part = ("" if value == DELTA_M else f"-{next(iter(chosen))}") + ("" if images is None else f"-{images}-images")
    retrained = _retrained(ablation, value, chosen, teachers) if ablation else {}
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
    compared = dict(zip(retrained, zip(mean(list(retrained)), retrained.values(), strict=True), strict=True))
    none, everyone = mean([frozenset(), frozenset(teachers)])
    of_students = {teacher: [values[teacher] for values in each] for teacher in teachers}
    order = greedy(teachers, mean)
    chain = [frozenset(name for name, _ in order[:size]) for size in range(len(order) + 1)]
    selection = Selection(
        value,
        value_label(value, chosen),
        [subject.name for subject in subjects],
        len(dataset),
        none,
        everyone,
        found,
        of_students,
        {teacher: spread(values) for teacher, values in of_students.items()},
        order,
        [list(values) for values in zip(*(game(chain) for game in games), strict=True)],
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
    """{subset: the value of the mean metrics of its retrained students}, relative to those with all teachers.

    Raises:
        UserError: the ablation's file is corrupt, or has other tasks.
    """
    file = ablation / "ablation.json"
    try:
        metrics: dict[Coalition, Metrics] = {
            frozenset(row["teachers"]): {
                task: {name: figures["mean"] for name, figures in row["metrics"][task].items()} for task in chosen
            }
            for row in read_json(file, ["rows"])["rows"]
            if row["kind"] == RETRAINED and row["teachers"] is not None and set(row["teachers"]) <= set(teachers)
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is corrupt, or not of these tasks: the ablation's command writes it anew") from error
    reference = metrics.get(frozenset(teachers))
    if reference is None:
        return {}
    return {subset: worth(found, value, reference, chosen) for subset, found in metrics.items()}


def _shapley_of(values: Mapping[Coalition, float], teachers: Sequence[str]) -> dict[str, float] | None:
    if any(coalition not in values for coalition in all_coalitions(teachers)):
        return None
    return exact_shapley(teachers, lambda coalitions: [values[c] for c in coalitions]).values

"""A reproduction's results in Markdown: claims first, then the students that they are about."""

from collections.abc import Mapping, Sequence

from sak import tables
from sak.metrics.interval import plus_minus
from sak.research.reproduction.results import HOLDS, MISSING, Results, interval, title, verdict
from sak.research.reproduction.study import BEST_ONLY, CLAIMS, FROZEN, LABELS, NO_TEACHERS, SAK, SINGLE_TASK
from sak.tasks import Task, arrow


def claims(results: Results) -> list[list[str]]:
    """A row for each of the paper's claims."""
    rows = [["claim", "here", "difference in Δm", "seeds"]]
    for claim in CLAIMS:
        differences = results.differences(claim)
        sentence = claim.sentence
        if BEST_ONLY in (claim.better, claim.worse) and (best := results.named(BEST_ONLY)):
            sentence = f"{sentence[:-1]} (here: {title(best)})."
        shown = interval(differences) if differences else ""
        rows.append([sentence, verdict(differences), shown, str(len(differences))])
    return rows


def by_task(results: Results) -> str:
    """What lies behind the claims: of each pair the differences in the tasks' own metrics; "" before there is any."""
    rows = [["above 0: the first is better", *results.tasks]]
    for claim in CLAIMS:
        if differences := results.task_differences(claim):
            pair = (title(results.named(name) or name) for name in (claim.better, claim.worse))
            rows.append([" − ".join(pair), *(interval(differences[task]) for task in results.tasks)])
    return tables.markdown(rows) if len(rows) > 1 else ""


def leading(results: Results) -> str:
    """Which frozen teacher leads in which task."""
    leaders = results.leaders()
    if not leaders:
        return f"Which teacher leads in which task: {MISSING}."
    told = ", ".join(
        f"{task} {teacher}{'' if said == HOLDS else f' ({said})'}" for task, (teacher, said) in leaders.items()
    )
    sure = {teacher for teacher, said in leaders.values() if said == HOLDS}
    count = {0: "No teacher is", 1: "One teacher is"}.get(len(sure), f"{len(sure)} teachers are")
    return f"{count} ahead of the next best in some task by more than chance. The leaders: {told}."


def students(results: Results, parameters: Mapping[str, int], seconds: Mapping[str, Sequence[float]]) -> str:
    """Metrics and Δm of all students, of parts of the labels last.

    Args:
        parameters: of each student as it is used.
        seconds: {student: its runs' times of training}.
    """
    header = ["student", "seeds", *(_column(name, task) for name, task in results.tasks.items()), "Δm %"]
    rows = [[*header, "parameters, M", "training, min"]]
    for name in sorted(results.students, key=_order):
        metrics = results.students[name].values()
        row = [title(name), str(len(metrics))]
        for task, kind in results.tasks.items():
            row.append(plus_minus([each[task][kind.headline()[0]] for each in metrics], f".{kind.digits}f"))
        row.append(plus_minus(list(results.gains(name).values()), "+.2f"))
        row.append(f"{parameters[name] / 1e6:.2f}" if name in parameters else "")
        row.append(plus_minus([value / 60 for value in seconds.get(name, ())], ".1f") if seconds.get(name) else "")
        rows.append(row)
    return tables.markdown(rows)


def _column(name: str, task: Task) -> str:
    return f"{name} {task.headline()[0]} {arrow(task)}"


def _order(name: str) -> tuple[int, str]:
    first = [SAK, SINGLE_TASK, NO_TEACHERS]
    if name in first:
        return first.index(name), name
    return (3 if LABELS not in name else 5) + name.startswith(FROZEN), name


def markdown(
    results: Results,
    parameters: Mapping[str, int],
    seconds: Mapping[str, Sequence[float]],
    failed: Mapping[str, str],
    facts: str,
    pictures: Mapping[str, str],
) -> str:
    """
    Args:
        failed: {run: what it said last}.
        facts: by which command, on which machine, with how many steps.
        pictures: {caption: file beside the page}.
    """
    parts = [
        facts,
        tables.markdown(claims(results)),
        by_task(results),
        leading(results),
        students(results, parameters, seconds),
        "Δm: the mean relative gain over the students of one task each, whose metrics are means over seeds. ± and "
        "brackets: 95 % interval of the mean over seeds (Student's t). A claim holds where the interval of the "
        "difference, in pairs of one seed, lies above 0; where it holds 0, nothing is decided. Task by task: of the "
        "metrics in the table of students; one of twenty such intervals leaves out 0 where there is no difference. "
        "Which single teacher is the best was chosen by the same runs. Frozen: the teacher as it is, under the same "
        "heads, trained as long. Training: steps × the median seconds of a step, without evaluation.",
        *(f"{task} is not in Δm: its single-task students have 0 there." for task in _left_out(results)),
        *(f"![{caption}]({file})" for caption, file in pictures.items()),
        *(f"{name} failed and is missing: {reason}" for name, reason in failed.items()),
    ]
    return "\n\n".join(part for part in parts if part)


def _left_out(results: Results) -> list[str]:
    """The tasks that no relative gain exists for."""
    return [] if results.reference is None else [task for task in results.tasks if task not in results.reference]

"""What the finished students tell: metrics by student and seed, and differences in pairs of one seed."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from sak.metrics import Metrics
from sak.metrics.delta_m import delta_m, gains
from sak.metrics.interval import BETTER, NOTHING, WORSE, finding, half_width
from sak.research.ablation.report import mean_metrics
from sak.research.reproduction.study import BEST_ONLY, FROZEN, ONLY, SAK, SINGLE, SINGLE_TASK, Claim
from sak.tasks import Task, headlines

HOLDS = "holds"
VERDICTS = {BETTER: HOLDS, NOTHING: "not decided", WORSE: "does not hold"}
TOO_FEW = "one seed: not decided"
MISSING = "not measured yet"


@dataclass
class Results:
    """
    Attributes:
        students: {student: {seed: its metrics}}; what has no finished run is missing.
    """

    tasks: Mapping[str, Task]
    students: dict[str, dict[int, Metrics]]

    def __post_init__(self):
        """The students of one task each become one row, of the seeds that all have."""
        names = [SINGLE + task for task in self.tasks]
        if all(name in self.students for name in names):
            seeds = set.intersection(*(set(self.students[name]) for name in names))
            self.students[SINGLE_TASK] = {
                seed: {task: self.students[SINGLE + task][seed][task] for task in self.tasks} for seed in sorted(seeds)
            }
        self.students = {name: found for name, found in self.students.items() if name not in names and found}

    @property
    def reference(self) -> Metrics | None:
        """What Δm is measured against: the mean of the single-task students, in the tasks that a relative gain exists
        for; None before there is any."""
        found = self.students.get(SINGLE_TASK)
        means = mean_metrics(list(found.values())) if found else {}
        return {task: values for task, values in means.items() if values[self.tasks[task].headline()[0]]} or None

    def gains(self, student: str) -> dict[int, float]:
        """{seed: Δm in percent}; empty before there is a reference, or the student."""
        if (reference := self.reference) is None:
            return {}
        known = headlines(self.tasks)
        return {
            seed: delta_m({task: found[task] for task in reference}, reference, known)
            for seed, found in self.students.get(student, {}).items()
        }

    def gains_of_tasks(self, student: str) -> dict[str, float]:
        """{task: relative gain of the mean metric, percent}."""
        if (reference := self.reference) is None or student not in self.students:
            return {}
        means = mean_metrics(list(self.students[student].values()))
        return gains({task: means[task] for task in reference}, reference, headlines(self.tasks))

    def named(self, name: str) -> str | None:
        """The student that is meant; None before it is finished. The best of a kind has the highest mean Δm."""
        if name != BEST_ONLY:
            return name if name in self.students else None
        known = {student: self.gains(student) for student in self.students if student.startswith(ONLY)}
        known = {student: values for student, values in known.items() if values}
        return max(known, key=lambda student: statistics.fmean(known[student].values()), default=None)

    def differences(self, claim: Claim) -> list[float]:
        """Δm of the better minus that of the worse, in pairs of one seed."""
        better, worse = (self.gains(self.named(name) or "") for name in (claim.better, claim.worse))
        return [better[seed] - worse[seed] for seed in better if seed in worse]

    def task_differences(self, claim: Claim) -> dict[str, list[float]]:
        """{task: what the better has more of its headline metric than the worse, where less is better what it has less,
        in pairs of one seed}; empty before both are finished with a seed."""
        better, worse = (self.students.get(self.named(name) or "", {}) for name in (claim.better, claim.worse))
        pairs = [(better[seed], worse[seed]) for seed in better if seed in worse]
        found = {}
        for task, kind in self.tasks.items() if pairs else ():
            metric, higher = kind.headline()
            found[task] = [(one[task][metric] - other[task][metric]) * (1 if higher else -1) for one, other in pairs]
        return found

    def leaders(self) -> dict[str, tuple[str, str]]:
        """{task: (the frozen teacher that leads, whether it is ahead of the second by more than chance)}."""
        found = {}
        for task, kind in self.tasks.items():
            metric, higher = kind.headline()
            sign = 1 if higher else -1
            values = {
                name: {seed: sign * each[task][metric] for seed, each in seeds.items()}
                for name, seeds in self.students.items()
                if name.startswith(FROZEN)
            }
            order = sorted(values, key=lambda name: -statistics.fmean(values[name].values()))
            if len(order) < 2:
                return {}
            first, second = (values[name] for name in order[:2])
            ahead = [first[seed] - second[seed] for seed in first if seed in second]
            found[task] = (order[0].removeprefix(FROZEN), verdict(ahead))
        return found


def verdict(differences: list[float]) -> str:
    """What is said of a claim by the differences in pairs of one seed."""
    if not differences:
        return MISSING
    return VERDICTS.get(finding(differences), TOO_FEW)


def interval(values: list[float]) -> str:
    """For people: the mean and its 95 % interval, as in +1.20 (0.40 to 2.00)."""
    mean, half = statistics.fmean(values), half_width(values)
    return f"{mean:+.2f}" if half is None else f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})"


def title(student: str) -> str:
    """What a student is called in tables."""
    return {SAK: "SAK"}.get(student, student.replace("-", " "))

"""One student with sources knocked out of its routers' mixtures: the metrics without each set of them, kept on disk.

What a masked student predicts is not what a student would that was trained without these sources: neither the other
sources' router weights, which are renormalised to sum to 1, nor the heads had a chance to adapt. Stem and paths are
computed once for a group of sets, routers and heads for each.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor, nn

from sak import data
from sak.config.schema import mixed_precision
from sak.data.faulty_images import build_skips
from sak.data.loading import Samples
from sak.errors import UserError
from sak.evaluation.evaluate import evaluate
from sak.evaluation.subject import Subject
from sak.files import read_json, write_json
from sak.metrics import Metrics
from sak.student import Student, StudentOutput
from sak.tasks import Task
from teachers.fingerprints import weights_hash

GROUP = 8  # sets that share a pass through stem and paths; their predictions of a batch are in memory together


class MaskedStudents:
    """The metrics of a student without some of its sources; what is in ``file`` already is not computed again.

    Args:
        subject: the student and how to evaluate it.
        tasks: to decode and measure.
        dataset: the images.
        file: JSON that is written after each group of sets; one of another student or other images is replaced.

    Raises:
        UserError: the file is corrupt.
    """

    def __init__(
        self, subject: Subject, tasks: Mapping[str, Task], dataset: Samples, accelerator: Accelerator, file: Path
    ):
        self.subject, self.tasks, self.dataset, self.accelerator, self.file = subject, tasks, dataset, accelerator, file
        self.origin = {
            "student": weights_hash(subject.student),
            "data": [subject.data.dataset, str(Path(subject.data.root).resolve()), *subject.data.image_size],
            "images": len(dataset),
            "tasks": list(tasks),
            **({"labels": data.kind_of(subject.data).READ_AS} if subject.data.labels else {}),
            "precision": mixed_precision(subject.precision),
        }
        self.skips = build_skips(subject.data, file.with_suffix(".skipped.txt"), "val", len(dataset), replaced=False)
        self.known: dict[str, Metrics] = {}
        if file.is_file():
            kept = read_json(file, ("origin", "metrics"))
            if kept["origin"] == self.origin:
                self.known = kept["metrics"]

    def metrics(self, without: Sequence[Collection[str]]) -> list[Metrics]:
        """
        Args:
            without: sets of sources to knock out, each not all of ``student.sources``.

        Raises:
            ValueError: a source is unknown, or all are left out.
            UserError: an image or a label cannot be read.
            FloatingPointError: a prediction is not finite.
            KeyboardInterrupt: the user stopped it; the groups that are done are kept.
        """
        for left_out in without:
            self.subject.student.knocked_out(tuple(left_out))
        ordered = [[source for source in self.subject.student.sources if source in left_out] for left_out in without]
        names = ["+".join(left_out) or "nothing" for left_out in ordered]
        missing = {name: left_out for name, left_out in zip(names, ordered, strict=True) if name not in self.known}
        groups = [list(missing)[start : start + GROUP] for start in range(0, len(missing), GROUP)]
        for number, group in enumerate(groups, start=1):
            print(f"masked students ({number} of {len(groups)}): without {', '.join(group)}")
            self.known.update(self._evaluate({name: missing[name] for name in group}))
            write_json(self.file, {"origin": self.origin, "metrics": self.known})
        return [self.known[name] for name in names]

    def _evaluate(self, group: Mapping[str, Sequence[str]]) -> dict[str, Metrics]:
        """All sets in one pass over the images: to `evaluate` they are tasks of one student."""
        student = self.subject.student.to(self.accelerator.device)
        tasks = {f"{name}/{task}": self.tasks[task] for name in group for task in self.tasks}
        found = evaluate(
            _SeveralMasked(student, list(self.tasks), group).eval(),
            tasks,
            self.dataset,
            self.subject.batch_size,
            self.subject.data.workers,
            self.accelerator,
            timeout=self.subject.data.timeout,
            skips=self.skips,
        ).metrics
        return {name: {task: found[f"{name}/{task}"] for task in self.tasks} for name in group}


class _SeveralMasked(nn.Module):
    """A student whose predictions are {"SET/TASK": (B, C, H, W)}, from one encoding of the images."""

    def __init__(self, student: Student, tasks: Sequence[str], without: Mapping[str, Sequence[str]]):
        super().__init__()
        self.student, self.tasks, self.without = student, tasks, without

    def forward(self, images: Tensor) -> StudentOutput:
        encoding = self.student.encode(images)
        predictions: dict[str, Tensor] = {}
        for name, left_out in self.without.items():
            output = self.student.decode(encoding, self.tasks, left_out)
            predictions |= {f"{name}/{task}": prediction for task, prediction in output.predictions.items()}
        return StudentOutput(predictions, {}, {})


def teachers_of(subject: Subject) -> list[str]:
    """Those of a student that can be knocked out.

    Raises:
        UserError: there are none.
    """
    teachers = [source for source in subject.student.sources if source != "stem"]
    if not teachers:
        raise UserError(
            f"the student of {subject.name} mixes no teachers' paths (it has the stem alone to read, and no routers), "
            "so that no teacher can be knocked out: give one that was trained with student.paths=adapter"
        )
    return teachers

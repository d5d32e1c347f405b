"""The same few validation images, drawn whenever a run is evaluated."""

import functools
from collections.abc import Iterable, Iterator, Mapping

import torch
from matplotlib.figure import Figure
from torch.utils.data import default_collate

from sak.data.loading import Samples
from sak.data.reading import FaultyFile
from sak.evaluation.evaluate import to_device
from sak.evaluation.figures import prediction_panel
from sak.labels import IGNORE
from sak.student import Student
from sak.tasks import Task

IMAGES = 6


class Panel:
    """
    Args:
        dataset: of unaugmented samples.
        skipping: whether images that cannot be read are passed over.
    """

    def __init__(self, dataset: Samples, tasks: Mapping[str, Task], device: torch.device, skipping: bool):
        self.dataset, self.tasks, self.device, self.skipping = dataset, tasks, device, skipping

    def draw(self, student: Student) -> dict[str, Figure]:
        """{task: what the student predicts for them, beside the truth}"""
        training = student.training
        student.eval()
        with torch.no_grad():
            output = student(self._batch["image"])
        student.train(training)
        return {name: prediction_panel(self._batch, output, {name: task}) for name, task in self.tasks.items()}

    @functools.cached_property
    def _batch(self) -> dict:
        """Images spread evenly over the data set: each the next one in which no task is ignored altogether."""
        total = len(self.dataset)
        count = min(IMAGES, total)
        samples = []
        for number in range(count):
            span = range(number * total // count, (number + 1) * total // count)
            complete = (s for s in self._readable(span) if all((s[task] != IGNORE).any() for task in self.tasks))
            samples.append(next(complete, None) or next(self._readable(span), None))
        return to_device(default_collate(list(filter(None, samples))), self.device)

    def _readable(self, indices: Iterable[int]) -> Iterator[dict]:
        for index in indices:
            try:
                yield self.dataset[index]
            except FaultyFile:
                if not self.skipping:
                    raise

"""``sak.Predictor``: a trained student that takes any picture."""

import copy
import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from sak.bundles.tasks import tasks_of
from sak.config.schema import AUTO
from sak.deploy.pictures import Picture, pixels_of
from sak.deploy.prediction import Prediction
from sak.deploy.windows import Canvas, enlarged
from sak.errors import UserError
from sak.evaluation.distributed import bf16_is_fast
from sak.evaluation.subject import open_subject
from sak.student import Student
from sak.tasks import Task

PRECISIONS = ("fp32", "bf16", AUTO)


class Predictor:
    """Predicts at a picture's own size.

    A picture that is no larger than those of training is padded with the mean colour, as in an evaluation. A larger one
    is seen through overlapping windows of that size, or shrunk first (``longest_edge``), or as a whole (``whole``).

    Args:
        bundle: a bundle, its id on the hub, a finished run, a checkpoint of the published code; or a student.
        device: of torch; None: a GPU if there is one.
        tasks: those to predict; None: all of the student's.
        without: sources to knock out of every task's mixture.
        longest_edge: pixels to which a picture's longer side is shrunk, where it is longer, before the student sees it.
        whole: one pass over the whole picture, padded to whole patches, whatever its size.
        batch_size: windows of one pass.
        precision: ``fp32``; ``bf16``, mixed precision; ``auto``, bf16 where the device is faster in it.

    Raises:
        UserError: there is no such student, device, task, source or precision.
    """

    def __init__(
        self,
        bundle: str | os.PathLike | Student,
        device: str | torch.device | None = None,
        tasks: Sequence[str] | None = None,
        without: Sequence[str] = (),
        longest_edge: int | None = None,
        whole: bool = False,
        batch_size: int = 8,
        precision: str = "fp32",
    ):
        if precision not in PRECISIONS:
            raise UserError(f"a prediction is made in one of {', '.join(PRECISIONS)}, not in {precision!r}")
        student = bundle if isinstance(bundle, Student) else open_subject(os.fspath(bundle), labelled=False).student
        known = tasks_of(student)
        if strangers := [name for name in tasks or () if name not in known]:
            raise UserError(f"the student has no task {strangers[0]!r}; it has: {', '.join(known) or 'none'}")
        self.device = usable(device)
        self.student = student.to(self.device).eval()
        self.tasks: dict[str, Task] = {name: known[name] for name in tasks or known}
        self.longest_edge, self.whole, self.batch_size = longest_edge, whole, batch_size
        self.without = self._known(without)
        fast = precision == AUTO and bf16_is_fast(self.device)
        self.precision = "bf16" if fast or precision == "bf16" else "fp32"

    def knocking_out(self, without: Sequence[str]) -> "Predictor":
        """The same predictor, of the same student, without these sources.

        Raises:
            UserError: the student has no such source, or would have none left.
        """
        other = copy.copy(self)
        other.without = self._known(without)
        return other

    def _known(self, without: Sequence[str]) -> tuple[str, ...]:
        try:
            self.student.knocked_out(without)
        except ValueError as error:
            raise UserError(str(error)) from error
        return tuple(without)

    def __call__(self, picture: Picture) -> Prediction:
        """The prediction for one picture: a path, a Pillow image, or an array; see `pixels_of`."""
        return next(self.each([picture]))

    def each(self, pictures: Iterable[Picture]) -> Iterator[Prediction]:
        """Their predictions, in their order; windows of one size share a pass, those of several pictures too.

        Raises:
            UserError: a picture cannot be read.
            FloatingPointError: a prediction is not finite.
        """
        started: deque[_Drawing] = deque()

        def windows() -> Iterator[tuple[_Drawing, Tensor]]:
            for picture in pictures:
                drawing = _Drawing(pixels_of(picture), self)
                started.append(drawing)
                for window in drawing.canvas.cut():
                    yield drawing, window

        for batch in _batches(windows(), self.batch_size):
            self._predict(batch)
            while started and started[0].complete:
                yield started.popleft().prediction()

    @torch.inference_mode()
    def _predict(self, batch: "list[tuple[_Drawing, Tensor]]") -> None:
        images = torch.stack([window for _, window in batch]).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            output = self.student(images, tasks=list(self.tasks), without=self.without)
        for number, (drawing, _) in enumerate(batch):
            raw = {task: maps[number].float() for task, maps in output.predictions.items()}
            routing = {
                task: torch.stack([level[number] for level in levels]).float().cpu().numpy()
                for task, levels in output.routing.items()
            }
            drawing.add(raw, routing)

    def window(self, size: Sequence[int]) -> tuple[int, int]:
        """(h, w) of the windows of a picture of this size."""
        height, width = self.student.image_size
        if self.whole:
            patch = self.student.stem.patch_size
            height, width = (
                -(-max(side, least) // patch) * patch for side, least in zip(size, (height, width), strict=True)
            )
        return height, width


class _Drawing:
    """One picture whose maps are being drawn, from windows in their order."""

    def __init__(self, picture: np.ndarray, predictor: Predictor):
        self.picture, self.predictor = picture, predictor
        self.size = picture.shape[:2]
        seen, edge = picture, predictor.longest_edge
        if edge is not None and max(self.size) > edge:
            height, width = (max(1, round(side * edge / max(self.size))) for side in self.size)
            seen = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        self.shrunk = seen is not picture
        self.canvas = Canvas(seen, predictor.window(seen.shape[:2]))
        self.routing: dict[str, list[np.ndarray]] = {task: [] for task in predictor.tasks}
        self.lines: dict[str, list[Tensor]] = {task: [] for task in predictor.tasks}  # raw, where they are enlarged
        self.maps: dict[str, np.ndarray] = {}
        self.done = dict.fromkeys(predictor.tasks, 0)  # lines of the map
        self.windows = 0

    @property
    def complete(self) -> bool:
        return self.windows == self.canvas.count

    def add(self, raw: dict[str, Tensor], routing: dict[str, np.ndarray]) -> None:
        self.windows += 1
        for task, weights in routing.items():
            self.routing[task].append(weights)
        for task, lines in self.canvas.add(raw).items():
            if not lines.isfinite().all():
                raise FloatingPointError(f"the student's {task} of a picture is not finite")
            if not self.shrunk:
                self._draw(task, lines)
                continue
            self.lines[task].append(lines)
            if self.complete:
                for strip in enlarged(torch.cat(self.lines.pop(task), dim=1), self.size):
                    self._draw(task, strip)

    def _draw(self, task: str, lines: Tensor) -> None:
        """The next lines (C, some, W) of a task."""
        values = self.predictor.tasks[task].predict(lines[None])[0].cpu().numpy()
        values = values if np.issubdtype(values.dtype, np.floating) else values.astype(np.uint8)
        if task not in self.maps:
            self.maps[task] = np.empty((*values.shape[:-2], *self.size), values.dtype)
        first = self.done[task]
        self.done[task] = first + values.shape[-2]
        self.maps[task][..., first : self.done[task], :] = values

    def prediction(self) -> Prediction:
        return Prediction(
            self.picture,
            self.predictor.tasks,
            self.maps,
            {task: np.mean(weights, axis=0) for task, weights in self.routing.items() if weights},
            self.predictor.student.sources,
            self.predictor.student.levels,
        )


def usable(device: str | torch.device | None) -> torch.device:
    """
    Raises:
        UserError: torch knows no such device, or does not find it here.
    """
    try:
        found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise UserError(f"the device {device} cannot be used here ({reason}): cpu can be") from error
    return found


def _batches(windows: "Iterator[tuple[_Drawing, Tensor]]", most: int) -> "Iterator[list[tuple[_Drawing, Tensor]]]":
    """Neighbours of one size, at most so many."""
    for _, alike in itertools.groupby(windows, key=lambda pair: pair[1].shape):
        while batch := list(itertools.islice(alike, most)):
            yield batch

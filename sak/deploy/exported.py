"""Exported files, run like the student that they came from, and compared with it."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from sak import data, tables
from sak.bundles.build import build_tasks
from sak.errors import UserError
from sak.evaluation import metrics_table
from sak.evaluation.distributed import build_accelerator
from sak.evaluation.evaluate import evaluate
from sak.evaluation.subject import Subject
from sak.student import Student, StudentOutput

BOUND = 1e-4  # of any value, in float32
ALIKE = 0.999  # share of the pixels with the same class
SCALES = (1, 0.75, 1.5)  # of training's size, at which dynamic files are tried
BATCHES = (1, 3)


class OnnxStudent(nn.Module):
    """An ONNX file through onnxruntime on CPUs: images (B, 3, H, W) -> ``StudentOutput`` without paths and routing."""

    def __init__(self, path: Path, threads: int = 0):
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.tasks = [output.name for output in self.session.get_outputs()]

    def forward(self, images: Tensor) -> StudentOutput:
        maps = self.session.run(self.tasks, {"images": images.cpu().numpy()})
        return StudentOutput(
            {task: torch.from_numpy(values) for task, values in zip(self.tasks, maps, strict=True)}, {}, {}
        )


class ProgramStudent(nn.Module):
    """The same of a program of torch.export."""

    def __init__(self, path: Path):
        super().__init__()
        with path.open("rb") as file:  # given its name, torch asks for a suffix
            program = torch.export.load(file).module()
        self.run = lambda images: program(images)  # no part of this module: it refuses eval()

    def forward(self, images: Tensor) -> StudentOutput:
        return StudentOutput(self.run(images), {}, {})


@dataclass(frozen=True)
class Difference:
    """Of one task's maps, between student and file.

    Attributes:
        images: (B, H, W) that both were given.
        largest: of any value.
        alike: share of the pixels whose largest channel is the same; None of tasks with one channel and of normals.
    """

    task: str
    images: tuple[int, int, int]
    largest: float
    alike: float | None


def compare(student: Student, exported: nn.Module, tasks: Mapping[str, bool], dynamic: bool) -> Iterator[Difference]:
    """On photographs, at training's size, and where the file is dynamic at two more, with one and with three images.

    Args:
        tasks: {task: whether its channels are classes}.
    """
    student = student.cpu().eval()
    patch = student.stem.patch_size
    for scale in SCALES if dynamic else SCALES[:1]:
        size = [max(2, round(scale * side / patch)) * patch for side in student.image_size]
        for count in BATCHES if dynamic else BATCHES[:1]:
            images = photographs(count, size)
            with torch.no_grad():
                own, theirs = student(images, tasks=list(tasks)).predictions, exported(images).predictions
            for task, classes in tasks.items():
                alike = (own[task].argmax(1) == theirs[task].argmax(1)).double().mean().item() if classes else None
                largest = (own[task] - theirs[task]).abs().max().item()
                yield Difference(task, (count, size[0], size[1]), largest, alike)


def check(differences: Sequence[Difference]) -> None:
    """
    Raises:
        UserError: a file in float32 is not what the student is.
    """
    for difference in differences:
        close = difference.largest <= BOUND and (difference.alike is None or difference.alike >= ALIKE)
        if not close:  # a value that is no number is not close either
            count, height, width = difference.images
            raise UserError(
                f"the exported file differs from the student in {difference.task} by {difference.largest:.2g} "
                f"({count} images of {height}x{width}; rounding is at most {BOUND:g}), and is not kept: torch "
                f"{torch.__version__} does not export this student as it is"
            )


def table(differences: Sequence[Difference]) -> tables.Rows:
    """For people: the largest differences of each task."""
    rows = [("task", "largest difference", "same class %", "compared at")]
    for task in dict.fromkeys(difference.task for difference in differences):
        own = [difference for difference in differences if difference.task == task]
        alike = [difference.alike for difference in own if difference.alike is not None]
        sizes = ", ".join("x".join(map(str, difference.images)) for difference in own)
        rows.append((task, f"{max(d.largest for d in own):.1e}", f"{100 * min(alike):.3f}" if alike else "-", sizes))
    return rows


def metrics_of_both(subject: Subject, path: Path, kind: str, tasks: Sequence[str] | None) -> tables.Rows:
    """A table of the student's metrics, and of the file's, on the validation images; one at a time, of training's size.

    Raises:
        UserError: the images cannot be read.
    """
    exported = OnnxStudent(path) if kind == "onnx" else ProgramStudent(path)
    subject.data.tasks = list(tasks or subject.student.channels)
    chosen = build_tasks(subject.data)
    if not Path(subject.data.root).exists():
        data.prepare(subject.data)
    images = data.build(subject.data, "val")
    accelerator = build_accelerator("fp32")
    columns = {
        title: evaluate(model, chosen, images, 1, subject.data.workers, accelerator).metrics
        for title, model in (("student", subject.student.to(accelerator.device)), ("file", exported))
    }
    return metrics_table.rows(chosen, columns)


def photographs(count: int, size: Sequence[int]) -> Tensor:
    """Some of scikit-image's, which come with it: (count, 3, H, W) in [0, 1]."""
    from skimage.data import astronaut, chelsea, coffee, rocket

    kinds = itertools.islice(itertools.cycle((astronaut, chelsea, coffee, rocket)), count)
    pictures = [cv2.resize(kind(), (size[1], size[0]), interpolation=cv2.INTER_AREA) for kind in kinds]
    return torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32) / 255)

"""Updates of the per-pixel metrics, against the same numbers from loops over classes and thresholds; alone, and with
what makes predictions of a head's output before them.

Legend: B batch, H, W image, C classes. Boundaries have a section of their own.
"""

import functools
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.timing import alternate, table
from sak import data
from sak.evaluation.evaluate import is_finite
from sak.labels import IGNORE
from sak.metrics.angular_error import AngularError
from sak.metrics.max_f import BETA_SQUARED, NUM_THRESHOLDS, MaxF
from sak.metrics.miou import MeanIoU
from sak.metrics.rmse import MAX_DEPTH, DepthRMSE

BATCH, HEIGHT, WIDTH = 4, 512, 512
ROUNDS = 15


class PlainIoU:
    """True and false positives and false negatives, class by class."""

    def __init__(self, num_classes: int):
        self.counts = torch.zeros(3, num_classes, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        valid = target != IGNORE
        for label in range(self.counts.shape[1]):
            predicted, true = prediction == label, target == label
            self.counts[0, label] += (predicted & true & valid).sum()
            self.counts[1, label] += (predicted & ~true & valid).sum()
            self.counts[2, label] += (~predicted & true & valid).sum()

    def compute(self) -> float:
        tp, fp, fn = self.counts.double()
        return float(100 * (tp / (tp + fp + fn).clamp(min=1)).mean())


class PlainMaxF:
    """Precision, recall and the IoU of each image, threshold by threshold."""

    def __init__(self):
        self.counts = torch.zeros(3, NUM_THRESHOLDS, dtype=torch.int64)
        self.iou = torch.zeros(NUM_THRESHOLDS, dtype=torch.float64)
        self.images = 0

    def update(self, probability: Tensor, target: Tensor) -> None:
        for image, truth in zip(probability, target, strict=True):
            valid = truth != IGNORE
            true = (truth == 1) & valid
            self.images += 1
            for number in range(NUM_THRESHOLDS):
                predicted = (image >= (number + 1) / (NUM_THRESHOLDS + 1)) & valid
                tp = (predicted & true).sum()
                self.counts[:, number] += torch.stack([tp, predicted.sum(), true.sum()])
                union = (predicted | true).sum()
                self.iou[number] += tp / union if union else 1.0

    def compute(self) -> tuple[float, float]:
        tp, predicted, true = self.counts.double()
        f = (1 + BETA_SQUARED) * tp / (BETA_SQUARED * true + predicted)
        return float(100 * f.max()), float(100 * (self.iou / self.images).max())


class PlainAngularError:
    """Image by image; there is no class to loop over."""

    def __init__(self):
        self.total, self.pixels = 0.0, 0

    def update(self, prediction: Tensor, target: Tensor) -> None:
        for p, g in zip(prediction, target, strict=True):
            valid = (g != IGNORE).all(0)
            p, g = p / p.norm(dim=0), g / g.norm(dim=0)
            angles = 2 * torch.atan2((p - g).norm(dim=0), (p + g).norm(dim=0)) * (180 / math.pi)
            self.total += float(angles[valid].double().sum())
            self.pixels += int(valid.sum())

    def compute(self) -> float:
        return self.total / self.pixels


class PlainRMSE:
    """Image by image; there is no class to loop over."""

    def __init__(self):
        self.total, self.pixels = 0.0, 0

    def update(self, prediction: Tensor, target: Tensor) -> None:
        for p, g in zip(prediction, target, strict=True):
            valid = (g > 0) & (g < MAX_DEPTH)
            self.total += float((p[valid].clamp(min=0) - g[valid]).double().square().sum())
            self.pixels += int(valid.sum())

    def compute(self) -> float:
        return math.sqrt(self.total / self.pixels)


Case = tuple[Callable, Callable, Tensor, Tensor]  # new library metric, new plain one, prediction, target


def cases() -> dict[str, dict[str, Case]]:
    """{benchmark: {task: case}}: smooth random maps with a tenth of their pixels ignored."""
    generator = torch.Generator().manual_seed(0)

    def smooth(channels: int) -> Tensor:
        coarse = torch.randn(BATCH, channels, HEIGHT // 32, WIDTH // 32, generator=generator)
        return F.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic")

    def ignoring(target: Tensor) -> Tensor:
        target[..., : HEIGHT // 10, :] = IGNORE
        return target

    def classes(count: int) -> Case:
        truth = smooth(count)
        prediction = (truth + smooth(count)).argmax(1)
        return (lambda: MeanIoU(count)), (lambda: PlainIoU(count)), prediction, ignoring(truth.argmax(1))

    salient = smooth(1)[:, 0]
    saliency = MaxF, PlainMaxF, (salient + smooth(1)[:, 0]).sigmoid(), ignoring((salient > 0).long())
    directions = F.normalize(smooth(3), dim=1)
    normals = AngularError, PlainAngularError, directions + 0.3 * smooth(3), ignoring(directions.clone())
    distance = smooth(1).abs() + 1
    depth = DepthRMSE, PlainRMSE, distance + 0.3 * smooth(1), ignoring(distance)
    return {
        "PASCAL-Context": {
            "semseg (21)": classes(21),
            "human_parts (7)": classes(7),
            "saliency": saliency,
            "normals": normals,
        },
        "NYUD-v2": {"semseg (40)": classes(40), "normals": normals, "depth": depth},
    }


def check(name: str, case: Case) -> None:
    """Both must compute the same, or their times could not be compared."""
    new, plain, prediction, target = case
    metric, loops = new(), plain()
    metric.update(prediction, target)
    loops.update(prediction, target)
    ours = metric.compute()
    ours = torch.stack(list(ours.values())) if isinstance(ours, dict) else ours
    torch.testing.assert_close(
        ours.double(), torch.tensor(loops.compute(), dtype=torch.float64), rtol=1e-5, atol=0, msg=name
    )


# What makes a prediction of an output (B, C, H, W), as it is written first.
PLAIN_PREDICTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "semseg": lambda output: output.argmax(1),
    "human_parts": lambda output: output.argmax(1),
    "saliency": lambda output: output.softmax(1)[:, 1],
    "normals": lambda output: F.normalize(output, dim=1),
    "depth": lambda output: output,
}


def from_outputs(archive: str, tasks: dict[str, Case]) -> dict[str, Case]:
    """The cases with outputs as heads give them, channels last, and metrics that begin with these."""
    found = {}
    for title, (new, plain, _, target) in tasks.items():
        name = title.partition(" ")[0]
        task = data.described(archive).build(name)
        output = torch.randn(BATCH, task.channels, HEIGHT // 4, WIDTH // 4, generator=torch.Generator().manual_seed(1))
        output = output.contiguous(memory_format=torch.channels_last)
        output = F.interpolate(output, (HEIGHT, WIDTH), mode="bilinear", align_corners=False)
        found[title] = (
            functools.partial(Whole, new, task.predict, is_finite),
            functools.partial(Whole, plain, PLAIN_PREDICTIONS[name], lambda raw: bool(raw.isfinite().all())),
            output,
            target,
        )
    return found


class Whole:
    """A metric whose update begins with the output."""

    def __init__(self, metric: Callable, predict: Callable[[Tensor], Tensor], finite: Callable[[Tensor], bool]):
        self.metric, self.predict, self.finite = metric(), predict, finite

    def update(self, output: Tensor, target: Tensor) -> None:
        assert self.finite(output)
        self.metric.update(self.predict(output), target)

    def compute(self) -> object:
        return self.metric.compute()


def run() -> str:
    rows, whole = [], []
    for archive, (benchmark, tasks) in zip(("pascal_context", "nyud"), cases().items(), strict=True):
        for name, case in tasks.items():
            check(name, case)
            rows.append(row(f"{benchmark}, {name}", {name: case}))
        rows.append(row(f"**{benchmark}, all**", tasks))
        outputs = from_outputs(archive, tasks)
        whole += [row(f"{benchmark}, {name}", {name: case}) for name, case in outputs.items()]
        whole.append(row(f"**{benchmark}, all**", outputs))
    columns = ("library, ms an image", "loops, ms an image", "loops / library", "spread")
    return (
        f"{BATCH} images of {HEIGHT} x {WIDTH} a batch, {ROUNDS} rounds in which both run in turn, medians; the spread "
        f"is that of the ratio over the rounds.\n\n{table(('update of', *columns), rows)}\n\n"
        "From a head's output on: whether it is finite, the prediction (argmax, softmax or normalize in the loops' "
        f"version), and the update.\n\n{table(('from the output, update of', *columns), whole)}"
    )


def row(title: str, tasks: dict[str, Case]) -> tuple[str, ...]:
    pairs = [(new(), plain(), prediction, target) for new, plain, prediction, target in tasks.values()]

    def library() -> None:
        for metric, _, prediction, target in pairs:
            metric.update(prediction, target)

    def loops() -> None:
        for _, metric, prediction, target in pairs:
            metric.update(prediction, target)

    times = alternate(library, loops, ROUNDS, time.process_time)
    each = 1000 / BATCH
    spread = f"{times.low:.1f}–{times.high:.1f}"
    return title, f"{times.first * each:.2f}", f"{times.second * each:.2f}", f"{times.median:.1f}", spread

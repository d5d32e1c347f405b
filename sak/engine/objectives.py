"""What the two stages minimise.

Each objective returns the total and its terms: a distillation term per teacher and level, a weighted term per task.
"""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from sak import distill
from sak.student import Student
from sak.student.adapter import AdapterPath
from sak.tasks import Task

Objective = Callable[[nn.Module, Mapping], tuple[Tensor, dict[str, Tensor]]]
Features = Callable[[Mapping], Mapping[str, Sequence[Tensor]]]  # of a batch: {teacher: [per level (B, D, h, w)]}


def of_images(committee: nn.Module) -> Features:
    """The features that the teachers compute from a batch's images."""
    return lambda batch: committee(batch["image"])


def distillation(features: Features, loss: str) -> Objective:
    """Stage 1: the paths learn the teachers' features (SAK, arXiv 2410.14633)."""

    def objective(student: nn.Module, batch: Mapping) -> tuple[Tensor, dict[str, Tensor]]:
        output = student(batch["image"], tasks=())
        terms = distill.distillation_terms(output.paths, features(batch), loss)
        return distill.total(terms), {f"distill/{name}": term for name, term in terms.items()}

    return objective


def multitask(features: Features | None, tasks: Mapping[str, Task], loss: str, alpha: float) -> Objective:
    """Stage 2: the weighted task losses plus alpha times the distillation (SAK, arXiv 2410.14633).

    ``features`` is None where nothing is distilled.
    """

    def objective(student: nn.Module, batch: Mapping) -> tuple[Tensor, dict[str, Tensor]]:
        output = student(batch["image"])
        terms = {
            f"task/{name}": task.weight * task.loss(output.predictions[name], batch[name])
            for name, task in tasks.items()
        }
        loss_sum = distill.total(terms)
        if features is not None:
            distilled = distill.distillation_terms(output.paths, features(batch), loss)
            loss_sum = loss_sum + alpha * distill.total(distilled)
            terms |= {f"distill/{name}": term for name, term in distilled.items()}
        return loss_sum, terms

    return objective


def choose_trained_weights(student: Student, stage: str, distils: bool) -> None:
    """What has no part in a stage's loss rests: the optimizer must not decay it, nor DDP wait for its gradient.

    ``distils`` says whether the stage's loss has a distillation part.
    """
    for part in (student.heads, student.routers):
        part.requires_grad_(stage == "multitask")
    beyond = student.levels[-1] + 1  # the first block whose output nobody reads
    student.stem.vit.blocks[beyond:].requires_grad_(False)
    for path in student.paths.values():
        path.aligners.requires_grad_(distils)
        if isinstance(path, AdapterPath):
            path.adapters[beyond + 1 :].requires_grad_(False)

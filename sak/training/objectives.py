"""What the two stages minimise.

Each objective returns the total and its terms: a distillation term per teacher and level, a weighted term per task.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from sak.distillation import losses
from sak.distillation.standardisation import Standardiser
from sak.student import Student, StudentOutput
from sak.student.adapter import AdapterPath
from sak.student.router import importance_cv2
from sak.tasks import Task
from sak.training.task_balance import TaskBalance

Objective = Callable[[nn.Module, Mapping], tuple[Tensor, dict[str, Tensor]]]
Features = Callable[[Mapping], Mapping[str, Sequence[Tensor]]]  # of a batch: {teacher: [per level (B, D, h, w)]}


def of_images(committee: nn.Module) -> Features:
    """The features that the teachers compute from a batch's images."""
    return lambda batch: committee(batch["image"])


def standardised(features: Features, standardiser: Standardiser) -> Features:
    """The features, standardised: what the paths are to learn instead."""
    return lambda batch: standardiser(features(batch))


def distilled(
    paths: Mapping[str, Sequence[Tensor]], features: Mapping[str, Sequence[Tensor]], loss: str, dropping: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The distillation loss and its terms, those of dropped teachers too."""
    if not dropping:
        terms = losses.distillation_terms(paths, features, loss)
        return losses.total(terms), {f"distill/{name}": term for name, term in terms.items()}
    of_images = losses.distillation_terms(paths, features, loss, per_image=True)
    terms = {f"distill/{name}": term.detach().mean() for name, term in of_images.items()}
    return losses.total_with_dropping(of_images, dropping), terms


def distillation(features: Features, loss: str, dropping: float = 0.0) -> Objective:
    """Stage 1: the paths learn the teachers' features (SAK, arXiv 2410.14633).

    Args:
        dropping: probability of ``losses.total_with_dropping``.
    """

    def objective(student: nn.Module, batch: Mapping) -> tuple[Tensor, dict[str, Tensor]]:
        output = student(batch["image"], tasks=())
        return distilled(output.paths, features(batch), loss, dropping)

    return objective


def multitask(
    features: Features | None,
    tasks: Mapping[str, Task],
    loss: str,
    alpha: float,
    dropping: float = 0.0,
    balance: float = 0.0,
    task_balance: TaskBalance | None = None,
    watch: Callable[[StudentOutput], None] | None = None,
    known: Features | None = None,
) -> Objective:
    """Stage 2: the weighted task losses plus alpha times the distillation (SAK, arXiv 2410.14633).

    Args:
        features: None where nothing is distilled.
        dropping: probability of ``losses.total_with_dropping``.
        balance: weight of the routers' balance terms, ``router.importance_cv2``, summed over tasks and levels.
        task_balance: weighs the task losses, which it learns from; the terms are those without its weights.
        watch: is handed every output of the student.
        known: what the student's frozen backbone makes of a batch, {its name: maps}; None where it computes that.
    """

    def objective(student: nn.Module, batch: Mapping) -> tuple[Tensor, dict[str, Tensor]]:
        if known is None:
            output = student(batch["image"])
        else:
            (maps,) = known(batch).values()
            output = student(batch["image"], maps=maps)
        if watch is not None:
            watch(output)
        terms = {
            f"task/{name}": task.weight * task.loss(output.predictions[name], batch[name])
            for name, task in tasks.items()
        }
        if task_balance is None:
            loss_sum = losses.total(terms)
        else:
            loss_sum, weights = task_balance({name: terms[f"task/{name}"] for name in tasks})
            terms |= weights
        if balance:
            routers = [importance_cv2(weights) for levels in output.routing.values() for weights in levels]
            terms["balance"] = torch.stack(routers).sum()
            loss_sum = loss_sum + balance * terms["balance"]
        if features is not None:
            distillation_sum, of_teachers = distilled(output.paths, features(batch), loss, dropping)
            loss_sum = loss_sum + alpha * distillation_sum
            terms |= of_teachers
        return loss_sum, terms

    return objective


def choose_trained_weights(student: Student, stage: str, distils: bool) -> None:
    """What has no part in a stage's loss is frozen: the optimizer must not decay it, nor DDP wait for its gradient.

    ``distils`` says whether the stage's loss has a distillation part.
    """
    for part in (student.heads, student.routers):
        part.requires_grad_(stage == "multitask")
    beyond = student.levels[-1] + 1  # the first block whose output nobody reads
    for block in student.stem.blocks_after(student.levels[-1]):
        block.requires_grad_(False)
    for path in student.paths.values():
        path.aligners.requires_grad_(distils)
        if isinstance(path, AdapterPath):
            path.adapters[beyond + 1 :].requires_grad_(False)
    for part in student.frozen:
        student.get_submodule(part).requires_grad_(False)

"""A checkout of the published code (github.com/innovator-zero/SAK) beside ours, in one process, with the same weights.

`python tools/benchmark.py published --path CHECKOUT`. Nothing is downloaded: the published teachers are random too.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from benchmarks.apart import Work, alone, in_turn
from benchmarks.paper import IN_TURN, RATIO_HEADER, SIZE, batch, ratio_rows
from benchmarks.paper import settings as paper_settings
from benchmarks.steps import with_states
from benchmarks.timing import table
from sak.bundles.build import build_committee, build_tasks
from sak.bundles.official import load_official
from sak.errors import UserError
from sak.student import Student
from sak.training import objectives
from sak.training.optimizer import adamw

ROUNDS = 2
NAMES = {"saliency": "sal"}  # what tasks are called there, where it is otherwise
TEACHERS = {"dinov2": "dinov2_base", "clip": "openclip_base", "sam": "sam_base"}
CLOSE = 1e-4  # of the norm


def run(path: Path) -> str:
    check(path)
    difference = alone(lambda: compare(path))
    rows = []
    for title, ours, theirs in (
        ("student, inference", our_inference, their_inference),
        ("student, forward and backward", our_learning, their_learning),
        ("multi-task step with teachers", our_step, their_step),
    ):
        one, other = ((lambda make=make: make(path)) for make in (ours, theirs))
        rows += ratio_rows(title, in_turn(one, other, ROUNDS))
    header = tuple(name.replace("plain", "published") for name in RATIO_HEADER)
    return (
        f"ViT-B, three teachers, five tasks, one image of {SIZE} x {SIZE}, AdamW; the published code in float32; "
        f"{IN_TURN.format(rounds=ROUNDS)}. With the same weights the students' outputs differ by {difference:.0e} of "
        f"their norm.\n\n{table(header, rows)}"
    )


def check(path: Path) -> None:
    """
    Raises:
        UserError: the folder is no checkout of the published code.
    """
    if not (path / "models" / "mt_distiller.py").is_file():
        raise UserError(f"--path {path} is no checkout of the published code: it has no models/mt_distiller.py")


def published(path: Path) -> nn.Module:
    """Its distiller with three teachers and five tasks, by its own code."""
    sys.path.insert(0, str(path))
    from losses import get_criterion
    from models.backbones import timm_encoders, vit
    from models.mt_distiller import MTMT_Distiller

    create, build = timm.create_model, vit.build_model_with_cfg

    def without_weights(name: str, **options: object) -> nn.Module:
        return create(name, **{**options, "pretrained": False})

    def stem(kind: type, variant: str, pretrained: bool, **options: object) -> nn.Module:
        return build(kind, variant, False, **options)

    tasks = ["semseg", "human_parts", "normals", "edge", "sal"]
    student = {
        "backbone": {"backbone_type": "sak", "vit_name": "vit_base", "down_ratio": 4, "aligner": False},
    }
    members = {name: {"backbone_type": kind, "pretrain": False} for name, kind in TEACHERS.items()}
    torch.manual_seed(0)
    with (
        mock.patch.object(timm_encoders.timm, "create_model", without_weights),
        mock.patch.object(vit, "build_model_with_cfg", stem),
    ):
        return MTMT_Distiller(
            (SIZE, SIZE),
            members,
            student,
            task_out=True,
            stu_criterion=get_criterion("pascalcontext", tasks),
            dataname="pascalcontext",
            tasks=tasks,
        )


def same_as(distiller: nn.Module) -> Student:
    return load_official(
        {name: weight.clone() for name, weight in distiller.student.state_dict().items()}, (SIZE, SIZE)
    )


def content() -> dict[str, Tensor]:
    return batch(SIZE)


def seen() -> dict[str, Tensor]:
    """With images as the published code's data sets give them; our student normalises them itself."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return {**content(), "image": (content()["image"] - mean) / std}


def predictions(student: nn.Module, images: Tensor) -> dict[str, Tensor]:
    output = student(images)
    return output.predictions if isinstance(student, Student) else output[1]


def our_inference(path: Path) -> Work:
    return inference(same_as(published(path)), content())


def their_inference(path: Path) -> Work:
    return inference(published(path).student, seen())


def inference(student: nn.Module, content: dict[str, Tensor]) -> Callable[[], dict[str, Tensor]]:
    student.eval()

    @torch.no_grad()
    def call() -> dict[str, Tensor]:
        return predictions(student, content["image"])

    return call


def our_learning(path: Path) -> Work:
    return learning(same_as(published(path)), content())


def their_learning(path: Path) -> Work:
    return learning(published(path).student, seen())


def learning(student: nn.Module, content: dict[str, Tensor]) -> Work:
    student.train()

    def call() -> None:
        student.zero_grad()
        sum(output.square().mean() for output in predictions(student, content["image"]).values()).backward()

    return call


def compare(path: Path) -> float:
    """Both must compute the same, or their times could not be compared."""
    distiller = published(path)
    found, expected = inference(same_as(distiller), content())(), inference(distiller.student, seen())()
    differences = [float((maps - expected[NAMES.get(name, name)]).norm() / maps.norm()) for name, maps in found.items()]
    if max(differences) > CLOSE:
        raise AssertionError(f"the outputs of the two students differ by {differences}")
    return max(differences)


def our_step(path: Path) -> Work:
    student, images, settings = same_as(published(path)), content(), paper_settings().stages.multitask
    features = objectives.of_images(build_committee(paper_settings()))
    objectives.choose_trained_weights(student, "multitask", distils=True)
    objective = objectives.multitask(features, build_tasks(paper_settings().data), settings.loss, settings.alpha)
    return step(student, lambda: objective(student, images)[0], with_states(adamw(student, settings.optim)))


def their_step(path: Path) -> Work:
    distiller, settings = published(path), paper_settings().stages.multitask.optim
    named = {NAMES.get(name, name): values for name, values in seen().items()}
    labels = {name: values[:, None] if values.dim() == 3 else values for name, values in named.items()}

    def loss() -> Tensor:
        distillation, tasks = distiller(labels)
        return tasks["total"] + distillation["total"]

    optimizer = torch.optim.AdamW(distiller.student.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    return step(distiller.student, loss, with_states(optimizer))


def step(student: nn.Module, loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    def call() -> None:
        student.train()
        loss().backward()
        nn.utils.clip_grad_norm_(student.parameters(), paper_settings().stages.multitask.optim.clip)
        optimizer.step()
        optimizer.zero_grad()

    return call

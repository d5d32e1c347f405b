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

from benchmarks.paper import RATIO_HEADER, SIZE, batch, in_bf16, in_turn, ratio_row
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
    distiller = published(path)
    theirs = distiller.student
    ours = load_official({name: weight.clone() for name, weight in theirs.state_dict().items()}, (SIZE, SIZE))
    content = batch(SIZE)
    seen = {**content, "image": normalised(content["image"])}
    difference = compare(ours, theirs, content)
    rows = []
    for title, one, other in (
        ("student, inference", lambda: inference(ours.eval(), content), lambda: inference(theirs.eval(), seen)),
        ("student, forward and backward", lambda: learn(ours, content), lambda: learn(theirs, seen)),
        ("multi-task step with teachers", our_step(ours, content), their_step(distiller, seen)),
    ):
        for way, of in ((one, ""), (in_bf16(one), ", ours in bf16")):
            rows.append(ratio_row(f"{title}{of}", in_turn(way, other, ROUNDS, warm_up=0), 1))
    header = tuple(name.replace("plain", "published") for name in RATIO_HEADER)
    return (
        f"ViT-B, three teachers, five tasks, one image of {SIZE} x {SIZE}, AdamW; the published code in float32; "
        f"processor seconds, {ROUNDS} rounds in which both run in turn, medians. With the same weights the students' "
        f"outputs differ by {difference:.0e} of their norm.\n\n{table(header, rows)}"
    )


def published(path: Path) -> nn.Module:
    """Its distiller with three teachers and five tasks, by its own code.

    Raises:
        UserError: the folder is no checkout of it.
    """
    if not (path / "models" / "mt_distiller.py").is_file():
        raise UserError(f"--path {path} is no checkout of the published code: it has no models/mt_distiller.py")
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


def normalised(images: Tensor) -> Tensor:
    """As the published code's data sets give them; our student does it itself."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return (images - mean) / std


def predictions(student: nn.Module, images: Tensor) -> dict[str, Tensor]:
    output = student(images)
    return output.predictions if isinstance(student, Student) else output[1]


@torch.no_grad()
def inference(student: nn.Module, content: dict[str, Tensor]) -> dict[str, Tensor]:
    return predictions(student, content["image"])


def learn(student: nn.Module, content: dict[str, Tensor]) -> None:
    student.train().zero_grad()
    sum(output.square().mean() for output in predictions(student, content["image"]).values()).backward()


def compare(ours: Student, theirs: nn.Module, content: dict[str, Tensor]) -> float:
    """Both must compute the same, or their times could not be compared."""
    found = inference(ours.eval(), content)
    expected = inference(theirs.eval(), {"image": normalised(content["image"])})
    differences = [float((maps - expected[NAMES.get(name, name)]).norm() / maps.norm()) for name, maps in found.items()]
    if max(differences) > CLOSE:
        raise AssertionError(f"the outputs of the two students differ by {differences}")
    return max(differences)


def our_step(student: Student, content: dict[str, Tensor]) -> Callable[[], None]:
    settings = paper_settings().stages.multitask
    features = objectives.of_images(build_committee(paper_settings()))
    objectives.choose_trained_weights(student, "multitask", distils=True)
    objective = objectives.multitask(features, build_tasks(paper_settings().data), settings.loss, settings.alpha)
    return step(student, lambda: objective(student, content)[0], with_states(adamw(student, settings.optim)))


def their_step(distiller: nn.Module, content: dict[str, Tensor]) -> Callable[[], None]:
    settings = paper_settings().stages.multitask.optim
    named = {NAMES.get(name, name): values for name, values in content.items()}
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

"""The paper's ViT-B experiment on PASCAL-Context with random weights: the library's form and the plain reference.

What is plain is in `tests/reference`: the paper's formulas line by line, and teachers as their own libraries run them.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from benchmarks.timing import Ratio
from sak import config
from sak.labels import IGNORE
from sak.student import Student
from teachers import Committee

ROOT = Path(__file__).parents[2]
SIZE = 512  # pixels a side of the second stage's images
STEM, WIDTH, LEVELS = "vit_base_patch16_384", 768, (2, 5, 8, 11)
TEACHERS = ("dinov2", "clip", "sam")
TASKS = {"semseg": 21, "human_parts": 7, "saliency": 2, "normals": 3, "edge": 1}


def settings(*overrides: str) -> DictConfig:
    """The recipe of the second stage alone, if not overridden, without weights to download."""
    random = [f"teachers.{name}.weights=random" for name in TEACHERS]
    without = ["student.pretrained=false", "stages.distill.steps=0", *random]
    return config.load(ROOT / "configs" / "sak_pascal.yaml", [*without, *overrides])


def reference(name: str) -> ModuleType:
    """A file of `tests/reference`, which is no package."""
    spec = importlib.util.spec_from_file_location(f"reference_{name}", ROOT / "tests" / "reference" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def students(
    size: int = SIZE, tasks: Mapping[str, int] = TASKS, teachers: Sequence[str] = TEACHERS
) -> tuple[Student, nn.Module]:
    """Both forms with the same weights, in training mode, for square images of ``size`` pixels a side."""
    torch.manual_seed(0)
    widths = {name: [WIDTH] * len(LEVELS) for name in teachers}
    shape = {"image_size": (size, size), "tasks": tasks, "teachers": widths, "levels": LEVELS}
    ours, plain = Student(STEM, **shape).train(), reference("student").PlainStudent(STEM, **shape).train()
    plain.load_state_dict(ours.state_dict(), strict=True)
    return ours, plain


def plain_teachers(committee: Committee) -> dict[str, nn.Module]:
    """The libraries' own forms of the same backbones."""
    kinds = {"dinov2": reference("teachers").PlainTimm, "clip": reference("teachers").PlainTimm}
    kinds["sam"] = reference("teachers").PlainSAM
    return {
        name: kinds[name](
            teacher.backbone, teacher.levels, *(x.flatten().tolist() for x in (teacher.mean, teacher.std))
        )
        for name, teacher in committee.members.items()
    }


def batch(size: int, count: int = 1) -> dict[str, Tensor]:
    """Noise as images and labels, a tenth of which is ignored."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, size, size)
    labels = {
        name: torch.randint(0, TASKS[name], shape, generator=generator)
        for name in ("semseg", "human_parts", "saliency")
    }
    labels["normals"] = nn.functional.normalize(torch.randn(count, 3, size, size, generator=generator), dim=1)
    labels["edge"] = torch.randint(0, 2, (count, 1, size, size), generator=generator).float()
    for label in labels.values():
        label[..., : size // 10, :] = IGNORE
    return {"image": torch.rand(count, 3, size, size, generator=generator), **labels}


def ratio_rows(title: str, both: Sequence[Ratio]) -> list[tuple[str, ...]]:
    """Of work on one image, ours in float32 and in bf16."""
    rows = []
    for times, of in zip(both, ("", ", ours in bf16"), strict=True):
        spread = f"{times.low:.2f}–{times.high:.2f}"
        rate = f"{1 / times.first:.3f}", f"{1 / times.second:.3f}"
        cells = f"{times.first:.2f}", f"{times.second:.2f}", *rate, f"**{times.median:.2f}**", spread
        rows.append((f"{title}{of}", *cells))
    return rows


IN_TURN = (
    "processor seconds, each form in a process of its own (ours keeps the memory that it frees, as it does in "
    "training), in turn, medians of {rounds} rounds; the spread is that of the ratio over the rounds"
)
RATIO_HEADER = ("", "ours, s", "plain, s", "ours, images/s", "plain, images/s", "plain / ours", "spread")

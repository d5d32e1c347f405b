"""What a language model sees of an image: the vocabulary alone, or with a second branch beside or behind it.

Legend: B batch, H,W image, N tokens of C channels of the vocabulary network, D channels of the branch, E width of the
language model.
"""

from collections.abc import Mapping
from typing import Any

import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn

import teachers
from sak.errors import UserError
from sak.student import Student
from sak.vocabulary.network import VocabularyNetwork
from teachers.base import RANDOM, resize, resize_position_embedding
from teachers.clip import CLIP


class Alone(nn.Module):
    """Vary-tiny (arXiv 2312.06109, section 3.2): the vocabulary's tokens, through one linear map: (B,N,E)."""

    def __init__(self, network: VocabularyNetwork, width: int):
        super().__init__()
        self.network = network
        self.projection = nn.Linear(network.channels, width)

    def forward(self, images: Tensor) -> Tensor:
        return self.projection(self.network(images))


class Branch(nn.Module):
    """A frozen second look at the image: maps (B,D,h,w), of all levels concatenated.

    Attributes:
        settings: plain values that `build_branch` makes it from again, without its weights.
        channels: D.
    """

    settings: dict[str, Any]
    channels: int

    def train(self, mode: bool = True) -> "Branch":
        return super().train(False)


class TeacherBranch(Branch):
    """A frozen teacher, as the paper's CLIP-L.

    Args:
        spec: the teacher's, as a plain dict.
    """

    def __init__(self, spec: Mapping[str, Any]):
        super().__init__()
        self.teacher = teachers.build("branch", spec)
        self.settings = {"teacher": _without_weights(spec, self.teacher)}
        self.channels = sum(self.teacher.dims)

    def forward(self, images: Tensor) -> Tensor:
        levels = self.teacher(images)
        return torch.cat([resize(level, levels[-1].shape[-2:], "bilinear") for level in levels], dim=1)


class StudentBranch(Branch):
    """A distilled student's features: its stem's, those of a teacher's path, or those that are routed for a task.

    Raises:
        UserError: it has no such source.
    """

    def __init__(self, student: Student, source: str):
        super().__init__()
        self.student, self.source = student.requires_grad_(False), source
        known = ("stem", *student.paths, *student.heads)
        if source not in known:
            raise UserError(f"vocabulary.branch.source is {source!r}, but the student has {', '.join(known)}")
        self.settings = {"student": student.settings, "source": source}
        self.channels = student.stem.width * len(student.levels)
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        # At the size that the student was trained at: from there it knows its positions.
        return torch.cat(self.student.features(resize(images, self.student.image_size, "bilinear"), self.source), dim=1)


def build_branch(settings: Mapping[str, Any]) -> Branch:
    """Of a branch's ``settings``, with random weights."""
    if "teacher" in settings:
        return TeacherBranch(settings["teacher"])
    return StudentBranch(Student(**settings["student"]), settings["source"])


class Parallel(nn.Module):
    """Vary-toy (arXiv 2401.12503, section 3.1): [branch; vocabulary], each through its own map to E/2 channels.

    The branch comes first, and is resized to the vocabulary's grid where its own is another.
    """

    def __init__(self, network: VocabularyNetwork, branch: Branch, width: int):
        super().__init__()
        self.network, self.branch = network, branch
        self.branch_projection = nn.Linear(branch.channels, width - width // 2)
        self.projection = nn.Linear(network.channels, width // 2)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.network.maps(images)
        beside = resize(self.branch(images), maps.shape[-2:], "bilinear")
        first = self.branch_projection(beside.flatten(2).transpose(1, 2))
        return torch.cat([first, self.projection(maps.flatten(2).transpose(1, 2))], dim=-1)


class Serial(nn.Module):
    """DeepEncoder (arXiv 2510.18234): CLIP takes the vocabulary's tokens for its patches; both go through one map.

    CLIP learns with the rest, as its input is new to it. Positions are resized to the vocabulary's grid.

    Args:
        branch: of a CLIP from open_clip whose width is C; up to its last level.

    Raises:
        UserError: the branch is no such CLIP.
    """

    def __init__(self, network: VocabularyNetwork, branch: Branch, width: int):
        super().__init__()
        clip = branch.teacher if isinstance(branch, TeacherBranch) else None
        tower = clip.backbone if isinstance(clip, CLIP) else None
        if not (isinstance(clip, CLIP) and isinstance(tower, VisionTransformer)):
            raise UserError("vocabulary.merge is serial, which needs a vision transformer of the family clip")
        self.network, self.branch_settings = network, branch.settings
        inner = tower.conv1.out_channels
        if inner != network.channels:
            raise UserError(
                f"vocabulary.merge is serial: CLIP has tokens of {inner} channels, but the vocabulary's have "
                f"{network.channels}; make the last of vocabulary.network.channels {inner}"
            )
        self.class_embedding = nn.Parameter(tower.class_embedding.detach().clone())
        self.positions = nn.Parameter(tower.positional_embedding.detach().clone())
        self.grid_size = tower.grid_size
        self.ln_pre = tower.ln_pre.requires_grad_(True)
        self.blocks = nn.ModuleList(tower.transformer.resblocks[: clip.levels[-1] + 1]).requires_grad_(True)
        self.projection = nn.Linear(inner + network.channels, width)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.network.maps(images)
        patches = maps.flatten(2).transpose(1, 2)
        of_patches = self.positions[1:].T.unflatten(1, self.grid_size).unsqueeze(0)
        of_patches = resize_position_embedding(of_patches, (maps.shape[2], maps.shape[3]))[0].flatten(1).T
        first = self.class_embedding.to(patches.dtype).expand(len(patches), 1, -1) + self.positions[:1]
        tokens = self.ln_pre(torch.cat([first, patches + of_patches], dim=1))
        for block in self.blocks:
            tokens = block(tokens)
        return self.projection(torch.cat([tokens[:, 1:], patches], dim=-1))


Vision = Alone | Parallel | Serial


def build_vision(network: VocabularyNetwork, merge: str, branch: Branch | None, width: int) -> Vision:
    """
    Args:
        merge: of `sak.config.vocabulary.MERGES`.
        branch: None where ``merge`` is none.
        width: E.
    """
    if branch is None:
        return Alone(network, width)
    return (Parallel if merge == "parallel" else Serial)(network, branch, width)


def merge_of(vision: Vision) -> str:
    """Of `sak.config.vocabulary.MERGES`."""
    return {Alone: "none", Parallel: "parallel", Serial: "serial"}[type(vision)]


def branch_settings(vision: Vision) -> dict[str, Any] | None:
    """That `build_branch` makes the branch of, without its weights; None where there is none."""
    if isinstance(vision, Serial):
        return vision.branch_settings
    return vision.branch.settings if isinstance(vision, Parallel) else None


def _without_weights(spec: Mapping[str, Any], teacher: nn.Module) -> dict[str, Any]:
    """The spec of the same teacher untrained, with what its weights alone would tell of it."""
    plain = {**spec, "weights": RANDOM, "options": dict(spec.get("options") or {})}
    if isinstance(teacher, CLIP):
        plain["options"] |= {key: getattr(teacher, key).flatten().tolist() for key in ("mean", "std")}
        plain["options"]["quick_gelu"] = any(isinstance(part, QuickGELU) for part in teacher.modules())
    return plain

"""The teachers of one student, asked together.

Legend: B batch, H, W image size in pixels, h, w token grid, D width of a teacher's tokens.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from torch import Tensor, nn

import teachers
from teachers.base import Teacher, TeacherSpec
from teachers.multiscale import MultiScale


class Committee(nn.Module):
    """Several frozen teachers. It holds nothing to train: keep it out of the optimizer, the checkpoint and DDP.

    Args:
        specs: {name: specification} of each teacher; the order is kept.
    """

    def __init__(self, specs: Mapping[str, TeacherSpec | Mapping[str, Any]]):
        super().__init__()
        self.members = nn.ModuleDict({name: teachers.build(name, spec) for name, spec in specs.items()})
        self.eval()

    @classmethod
    def of(cls, members: Mapping[str, Teacher | MultiScale]) -> "Committee":
        """Of teachers that are built."""
        committee = cls({})
        committee.members.update(members)
        return committee

    def __getitem__(self, name: str) -> Teacher | MultiScale:
        return dict(self.items())[name]

    def items(self) -> Iterable[tuple[str, Teacher | MultiScale]]:
        """(name, teacher) of each, in their order."""
        return cast(Iterable[tuple[str, Teacher | MultiScale]], self.members.items())

    @property
    def dims(self) -> dict[str, list[int]]:
        """{name: [D of each level]}"""
        return {name: member.dims for name, member in self.items()}

    @property
    def reports(self) -> list[str]:
        """One line per teacher: what its weights were loaded from, what was left out, what was resized."""
        return [f"{name}: {member.report or 'untrained weights'}" for name, member in self.items()]

    def forward(self, images: Tensor) -> dict[str, list[Tensor]]:
        """Images (B,3,H,W) in [0,1] -> {name: [(B,D,h,w) per level]}, without gradient."""
        return {name: member(images) for name, member in self.members.items()}

    def train(self, mode: bool = True) -> "Committee":
        """Teachers stay in eval mode."""
        return super().train(False)

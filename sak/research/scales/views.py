"""The ways of looking that are compared: a small frozen model at one or more scales, and larger ones at one.

Legend: H, W image in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from omegaconf import DictConfig
from torch import nn

import teachers
from sak.config.schema import teacher_spec
from sak.errors import UserError
from sak.preflight.operations import counting
from teachers import MultiScale, Teacher
from teachers.base import unknown


@dataclass(frozen=True)
class View:
    """
    Attributes:
        model: its name in the config.
        scales, split, merge: as of `S2`.
    """

    model: str
    scales: tuple[int, ...] = (1,)
    split: bool = True
    merge: str = "concat"

    @property
    def name(self) -> str:
        """As in `small 1+2 whole`."""
        scales = "+".join(map(str, self.scales)) if len(self.scales) > 1 else ""
        parts = [self.model, scales, "" if self.split else "whole", "" if self.merge == "concat" else self.merge]
        return " ".join(part for part in parts if part)

    @property
    def key(self) -> str:
        """For names of files."""
        return self.name.replace(" ", "-").replace("+", "-")


def views(small: str, large: str, ceiling: str | None, scales: Sequence[int]) -> list[View]:
    """The small model at the first, the first two, ... of the scales; at the first two as a whole image, and as a sum;
    the larger ones at one scale."""
    counts = range(1, len(scales) + 1)
    pair = tuple(scales[:2])
    found = [View(small, tuple(scales[:count])) for count in counts]
    found += [View(small, pair, split=False), View(small, pair, merge="sum"), View(large)]
    return found + ([View(ceiling)] if ceiling else [])


def build(config: DictConfig, chosen: Sequence[View]) -> dict[View, Teacher | MultiScale]:
    """The views' models; one model's views share its weights.

    Raises:
        UserError: the config has no such model, or it has scales of its own.
    """
    specs = {name: teacher_spec(spec) for name, spec in {**config.teachers, **config.probe.extra}.items()}
    plain: dict[str, Teacher | MultiScale] = {}
    for name in dict.fromkeys(view.model for view in chosen):
        if name not in specs:
            raise UserError(unknown("model of the config's teachers or probe.extra", name, specs))
        if specs[name].scales != [1]:
            raise UserError(f"the scales of {name} are {specs[name].scales} already; leave them out in the config")
        plain[name] = teachers.build(name, specs[name])
    found: dict[View, Teacher | MultiScale] = {}
    for view in chosen:
        model = plain[view.model]
        if view.scales != (1,) and isinstance(model, Teacher):
            model = MultiScale(model, view.scales, split=view.split, merge=view.merge)
        found[view] = model
    return found


def gflop(model: nn.Module, height: int, width: int) -> float:
    """Of one image: two for each multiplication and addition of matrix products, convolutions and attention, in 10⁹."""
    with counting() as counter, torch.no_grad():
        model(torch.zeros(1, 3, height, width))
    return counter.get_total_flops() / 1e9

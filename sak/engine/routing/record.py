"""The routers' weights while they train, left on the device until somebody looks."""

import torch
from torch import Tensor

from sak.student import Student, StudentOutput


class RoutingRecord:
    """The mean weights that the images of the newest step got (noisy where gating is).

    Args:
        student: whose routers they are.
    """

    def __init__(self, student: Student):
        self.sources, self.levels = student.sources, student.levels
        self.new_step()

    def new_step(self) -> None:
        """Forget the weights of the step before."""
        self._tasks: list[str] = []
        self._micro_batches: list[Tensor] = []  # each (tasks, levels, S)

    def add(self, output: StudentOutput) -> None:
        """Note the weights of a micro-batch, without a look at them."""
        if output.routing:
            self._tasks = list(output.routing)
            means = [[weights.detach().float().mean(0) for weights in levels] for levels in output.routing.values()]
            self._micro_batches.append(torch.stack([torch.stack(levels) for levels in means]))

    @property
    def mean(self) -> Tensor | None:
        """(tasks, levels, S): over the micro-batches of the step; None where nothing is routed."""
        return torch.stack(self._micro_batches).mean(0) if self._micro_batches else None

    def named(self, mean: Tensor) -> dict[str, float]:
        """{TASK/blockN/SOURCE: weight} of such means."""
        return {
            f"{task}/block{block}/{source}": weight
            for task, levels in zip(self._tasks, mean.tolist(), strict=True)
            for block, weights in zip(self.levels, levels, strict=True)
            for source, weight in zip(self.sources, weights, strict=True)
        }

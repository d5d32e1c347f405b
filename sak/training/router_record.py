"""The routers' weights while they train, left on the device until somebody looks; and what a run's events call them."""

import torch
from torch import Tensor

from sak.student import Student, StudentOutput

# Groups of weights, ``TASK/blockN/SOURCE`` in each: means over the validation set, or over a step's batch.
VALIDATION, TRAINING = "routing", "routing_training"


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
        self._micro_batches: list[dict[str, list[Tensor]]] = []  # each {task: [per level (B, S)]}

    def add(self, output: StudentOutput) -> None:
        """Keep the weights of a micro-batch, without a look at them: few steps are ever asked for their mean."""
        if output.routing:
            routing = {task: [weights.detach() for weights in levels] for task, levels in output.routing.items()}
            self._micro_batches.append(routing)

    @property
    def mean(self) -> Tensor | None:
        """(tasks, levels, S): over the micro-batches of the step; None where nothing is routed."""
        if not self._micro_batches:
            return None
        means = [
            [[weights.float().mean(0) for weights in levels] for levels in routing.values()]
            for routing in self._micro_batches
        ]
        return torch.stack([torch.stack([torch.stack(levels) for levels in tasks]) for tasks in means]).mean(0)

    def named(self, mean: Tensor) -> dict[str, float]:
        """{TASK/blockN/SOURCE: weight} of such means."""
        return {
            weight_tag(task, block, source): weight
            for task, levels in zip(self._micro_batches[0], mean.tolist(), strict=True)
            for block, weights in zip(self.levels, levels, strict=True)
            for source, weight in zip(self.sources, weights, strict=True)
        }


def weight_tag(task: str, block: int, source: str) -> str:
    """Within a group."""
    return f"{task}/block{block}/{source}"

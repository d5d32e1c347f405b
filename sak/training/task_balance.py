"""Weights of the task losses that follow the training, on top of the tasks' fixed weights.

Both kinds have their gradients in closed form, from the losses alone, so that neither the model's optimizer, nor
loss scaling, nor what wraps the model has a part in them. They move once per optimizer step.

Shapes: K tasks.
"""

import abc
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from sak.errors import UserError
from sak.student import Student
from sak.tasks import Kind

REGRESSION = (Kind.VECTORS, Kind.FIELD, Kind.DISTANCE)
SMALLEST = 1e-3  # weight in GradNorm


class TaskBalance(abc.ABC):
    """Weighs the losses of a step's micro-batches, then learns from them.

    Args:
        tasks: their names.
        learning_rate: of Adam on what is learned.
        start: (K,) what is learned, at the start.
    """

    def __init__(self, tasks: Sequence[str], learning_rate: float, start: Tensor):
        self.tasks = list(tasks)
        self.learned = nn.Parameter(start)
        self._optimizer = torch.optim.Adam([self.learned], lr=learning_rate)
        self._losses: list[Tensor] = []

    @property
    @abc.abstractmethod
    def weights(self) -> Tensor:
        """(K,) of the tasks' losses now."""

    @abc.abstractmethod
    def _gradient(self, losses: Tensor, mean: Callable[[Tensor], Tensor]) -> Tensor:
        """(K,) of the balance's own loss over what is learned; ``losses`` (K,) are the step's."""

    def __call__(self, losses: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """{task: loss of a micro-batch} -> the weighted sum, and terms for the log: the weights."""
        stacked = torch.stack([losses[task] for task in self.tasks])
        self._losses.append(stacked.detach())
        weights = self.weights
        return (weights * stacked).sum(), {f"weight/{task}": w for task, w in zip(self.tasks, weights, strict=True)}

    @torch.no_grad()
    def step(self, mean: Callable[[Tensor], Tensor] = lambda values: values) -> None:
        """Learn from the micro-batches since the last step.

        Args:
            mean: averages a tensor over the processes that train together; all must ask.
        """
        losses = mean(torch.stack(self._losses).mean(dim=0))
        self.learned.grad = self._gradient(losses, mean)
        self._optimizer.step()
        self._losses.clear()

    def state_dict(self) -> dict:
        return {"learned": self.learned.detach(), "optimizer": self._optimizer.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping) -> None:
        self.learned.copy_(state["learned"])
        self._optimizer.load_state_dict(state["optimizer"])


class Uncertainty(TaskBalance):
    """Homoscedastic uncertainty (Kendall et al., arXiv 1705.07115, eq. 7 and 10), with s = log σ² learned per task.

    A classification's loss L counts as exp(-s) L + s/2, a regression's as exp(-s) L/2 + s/2. The term s/2 has no
    gradient over the model and is left out of the sum. At the optimum, weight times loss is 1/2 for every task.
    """

    def __init__(self, tasks: Mapping[str, Kind], learning_rate: float, device: torch.device | None = None):
        super().__init__(list(tasks), learning_rate, torch.zeros(len(tasks), device=device))
        self._factors = torch.tensor([0.5 if kind in REGRESSION else 1.0 for kind in tasks.values()], device=device)

    @property
    def weights(self) -> Tensor:
        return self._factors * torch.exp(-self.learned.detach())

    def _gradient(self, losses: Tensor, mean: Callable[[Tensor], Tensor]) -> Tensor:
        return 0.5 - self.weights * losses


class GradNorm(TaskBalance):
    """Gradient normalisation (Chen et al., arXiv 1711.02257, eq. 1 and 2, algorithm 1), with the weights w learned.

    G_i = ‖∇_W w_i L_i‖ with W the last shared layer; r_i = (L_i / L_i(0)) / mean of them; the weights follow the
    gradient of Σ_i |G_i - mean(G) · r_i^α|, in which the second part counts as constant, and are then scaled to sum
    to K. L_i(0) is the first loss of the task that is not 0. (Ours: no weight falls below 0.001.)

    Args:
        shared: W.
        alpha: α ≥ 0; the larger, the more a task that learns slowly is preferred.
    """

    def __init__(self, tasks: Sequence[str], learning_rate: float, shared: nn.Parameter, alpha: float = 1.5):
        super().__init__(tasks, learning_rate, torch.ones(len(tasks), device=shared.device))
        self.shared, self.alpha = shared, alpha
        self._first = torch.zeros(len(tasks), device=shared.device)
        self._gradients: list[Tensor] = []

    @property
    def weights(self) -> Tensor:
        return self.learned.detach().clone()

    def __call__(self, losses: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        gradients = [torch.autograd.grad(losses[task], self.shared, retain_graph=True)[0] for task in self.tasks]
        self._gradients.append(torch.stack(gradients).float())
        return super().__call__(losses)

    def _gradient(self, losses: Tensor, mean: Callable[[Tensor], Tensor]) -> Tensor:
        norms = mean(sum(self._gradients, torch.zeros(())) / len(self._gradients)).flatten(1).norm(dim=1)
        self._gradients.clear()
        self._first = torch.where(self._first > 0, self._first, losses)
        ratios = torch.where(self._first > 0, losses / self._first, 1.0)
        # A batch may leave all losses at 0, where nothing in it is labelled.
        rates = ratios / ratios.mean().clamp(min=torch.finfo(ratios.dtype).tiny)
        wanted = (self.learned * norms).mean() * rates**self.alpha
        return torch.sign(self.learned * norms - wanted) * norms

    @torch.no_grad()
    def step(self, mean: Callable[[Tensor], Tensor] = lambda values: values) -> None:
        super().step(mean)
        self.learned.clamp_(min=SMALLEST)
        self.learned.mul_(len(self.tasks) / self.learned.sum())

    def state_dict(self) -> dict:
        return {**super().state_dict(), "first": self._first}

    def load_state_dict(self, state: Mapping) -> None:
        super().load_state_dict(state)
        self._first = state["first"].to(self.learned.device)


def build_task_balance(
    kind: str, tasks: Mapping[str, Kind], learning_rate: float, alpha: float, student: Student, device: torch.device
) -> TaskBalance | None:
    """What ``stages.multitask.task_balance`` names; None for ``none``.

    Args:
        tasks: {task: the kind of its labels}.
        student: as it is trained: GradNorm reads the gradients of the last weight of its last shared block.

    Raises:
        UserError: for GradNorm, the stem is not trained.
    """
    if kind == "none":
        return None
    if kind == "uncertainty":
        return Uncertainty(tasks, learning_rate, device)
    shared = student.stem.vit.get_parameter(f"blocks.{student.levels[-1]}.mlp.fc2.weight")
    if not shared.requires_grad:
        raise UserError("stages.multitask.task_balance is gradnorm, which needs a stem that is trained")
    return GradNorm(list(tasks), learning_rate, shared, alpha)

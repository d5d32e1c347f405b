"""A student that learns: its weights and its optimizer, as all processes train them together."""

import math
from typing import cast

import torch
from accelerate import Accelerator
from omegaconf import DictConfig
from torch import Tensor, nn

from sak.config.schema import OptimConfig
from sak.student import Student
from sak.student.growth import keep_entrances_positive
from sak.training import sharding

SMALLEST_SCALE = 1e-3  # of fp16's losses: from here on, a gradient that overflows is beyond 6e7


class Learner:
    """For one stage: afterwards, `release` it.

    Args:
        student: whose weights that require a gradient learn. Where it is sharded, a copy learns, and `gather` brings
            the student itself up to date.
        optim: of the stage.
        sharded: whether each process keeps but its share of weights and states.
        state: of a checkpoint in this stage, out of which it takes the "optimizer" to go on with.

    Attributes:
        model: what a training pass is called on.
        optimizer: AdamW.
    """

    def __init__(
        self,
        student: nn.Module,
        optim: OptimConfig | DictConfig,
        accelerator: Accelerator,
        sharded: bool,
        state: dict | None,
    ):
        self.student, self.accelerator, self.sharded, self.clip = student, accelerator, sharded, optim.clip
        device, load_states = accelerator.device, torch.optim.Optimizer.load_state_dict
        if sharded:
            # The student itself stays whole, in the host's memory.
            model, load_states = sharding.sharded(cast(Student, student.cpu()), device), sharding.load_states
        else:
            model = student.to(device)
        optimizer = adamw(model, optim)
        keep_entrances_positive(model, optimizer)
        if state:
            load_states(optimizer, state.pop("optimizer"))
        if sharded:
            self.model, self.optimizer = model, accelerator.prepare(optimizer)
        else:
            self.model, self.optimizer = accelerator.prepare(model, optimizer)

    def set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def step(self) -> Tensor:
        """Move the weights by their gradients, which are clipped first if the stage says so.

        Returns:
            the norm of all gradients before they were clipped, a scalar on the device; where it is not finite the
            weights are ruined. The steps that fp16's scaler leaves out have 0.
        """
        limit = math.inf if self.clip is None else self.clip
        norm = sharding.whole_tensor(self.accelerator.clip_grad_norm_(self.model.parameters(), limit))
        if (scaler := self.accelerator.scaler) is not None:
            # It halves its scale at each of them. Where that has not helped, the loss itself has no finite gradient.
            left_out = ~norm.isfinite() & (scaler.scale(torch.ones_like(norm)) > SMALLEST_SCALE)
            norm = norm.masked_fill(left_out, 0)
        self.optimizer.step()
        return norm

    def gather(self) -> None:
        """Bring the student up to date. All processes must ask."""
        if self.sharded:
            sharding.gather(self.model, self.student)

    def states(self) -> dict:
        """What a checkpoint holds of optimizer and scaler, in the first process. All processes must ask."""
        main, scaler = self.accelerator.is_main_process, self.accelerator.scaler
        whole = sharding.whole_states(self.optimizer, keep=main) if self.sharded else self.optimizer.state_dict()
        return {"optimizer": whole, "scaler": scaler.state_dict() if scaler is not None else {}}

    def release(self) -> None:
        """Leave the student as it was handed in, but trained, and free all else."""
        if not self.sharded:
            self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.accelerator.free_memory(self.model, self.optimizer)


def adamw(model: nn.Module, optim: OptimConfig | DictConfig) -> torch.optim.AdamW:
    """AdamW over the parameters that require a gradient, in fused kernels: one pass over the memory of each."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    betas = (optim.betas[0], optim.betas[1])
    return torch.optim.AdamW(trained, lr=optim.lr, betas=betas, weight_decay=optim.weight_decay, fused=True)

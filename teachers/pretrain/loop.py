"""The training loop that the three miniatures share: seeded, resumable, with one line of progress."""

import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from sak.errors import UserError
from sak.files import replacing
from sak.tensors import read_tensors
from teachers.pretrain import data


class Objective(nn.Module):
    """A network together with what it is trained for; its state is all that a resume needs."""

    def __init__(self, scenes: data.Scenes, batch_size: int):
        super().__init__()
        self.scenes, self.batch_size = scenes, batch_size

    def loss(self, progress: float, generator: torch.Generator) -> Tensor:
        """The loss of a fresh random batch at `progress` in 0..1 of the training."""
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """What follows an optimizer step, such as a momentum average."""

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Go on from weights that were exported before."""
        raise NotImplementedError

    def exported(self) -> dict[str, Tensor]:
        """The weights of what is kept, as its library's checkpoints name them."""
        raise NotImplementedError


def fit(
    objective: Objective, steps: int, learning_rate: float, checkpoint: Path, seed: int, every: int = 100
) -> tuple[float, int]:
    """Train `objective` for `steps` with AdamW (weight decay 0.05 on matrices), 5% warm-up and a cosine to zero.

    The checkpoint is written every `every` steps and continued from if it exists.

    Returns:
        seconds spent in training, over all starts, and the number of starts.

    Raises:
        UserError: the checkpoint is of a run with another number of steps, rate or seed.
        FloatingPointError: the loss is not finite.
    """
    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": 0.05},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98))
    generator = torch.Generator().manual_seed(seed)
    run = {"steps": steps, "learning_rate": learning_rate, "seed": seed}
    first, seconds, starts = 0, 0.0, 1
    if checkpoint.exists():
        state = read_tensors(checkpoint)
        if not isinstance(state, dict) or "run" not in state:
            raise UserError(f"{checkpoint} is no checkpoint of this training; delete it to start anew.")
        if state["run"] != run:
            raise UserError(f"{checkpoint} belongs to a run with {state['run']}, not {run}; delete it to start anew.")
        objective.load_state_dict(state["objective"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        first, seconds, starts = state["step"], state["seconds"], state["starts"] + (state["step"] < steps)

    started, mean = time.monotonic() - seconds, None
    bar = tqdm(range(first, steps), initial=first, total=steps, desc=checkpoint.stem, mininterval=5)
    for step in bar:
        rate = learning_rate * min((step + 1) / (0.05 * steps), 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        # the plain kernel: torch's fused one takes half of a step for its gradient in bfloat16 on a CPU
        with sdpa_kernel(SDPBackend.MATH):
            loss = objective.loss(step / steps, generator)
            if not loss.isfinite():
                raise FloatingPointError(f"{checkpoint.stem}: the loss is {loss.item()} at step {step}")
            optimizer.zero_grad()
            loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        objective.after_step(step / steps)
        mean = loss.item() if mean is None else 0.95 * mean + 0.05 * loss.item()
        bar.set_postfix(loss=f"{mean:.3f}", lr=f"{rate:.1e}", refresh=False)
        if (step + 1) % every == 0 or step + 1 == steps:
            seconds = time.monotonic() - started
            with replacing(checkpoint) as partial:
                torch.save(
                    {
                        "run": run,
                        "step": step + 1,
                        "seconds": seconds,
                        "starts": starts,
                        "objective": objective.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "generator": generator.get_state(),
                    },
                    partial,
                )
    return seconds, starts

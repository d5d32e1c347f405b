"""The training loop that the miniatures share: seeded, in phases, resumable to the bit, watched in TensorBoard."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from sak.errors import UserError
from sak.files import replacing
from sak.tensors import read_tensors
from teachers.pretrain.data import Scenes


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of the training with a warm-up and a cosine of its own; an objective says what it makes of its name."""

    name: str
    steps: int
    batch_size: int
    learning_rate: float  # at its highest
    warmup: float = 0.05  # share of its steps

    def rate(self, step: int) -> float:
        """The learning rate of one of its steps."""
        rising = (step + 1) / max(1.0, self.warmup * self.steps)
        return self.learning_rate * min(rising, 0.5 * (1 + math.cos(math.pi * step / self.steps)))


class Objective(nn.Module):
    """A network together with what it is trained for; its state is all that a resume needs, the scenes aside."""

    def __init__(self, scenes: Scenes):
        super().__init__()
        self.scenes = scenes

    @property
    def device(self) -> torch.device:
        return self.scenes.images.device

    def losses(self, phase: Phase, generator: torch.Generator) -> dict[str, Tensor]:
        """The terms of the loss of a fresh random batch, which are summed."""
        raise NotImplementedError

    def after_step(self, phase: Phase, progress: float) -> None:
        """What follows an optimizer step, such as a momentum average; `progress` in 0..1 of the phase."""

    def blocks(self) -> Sequence[nn.Module]:
        """Where the time goes: what is worth compiling."""
        raise NotImplementedError

    def exported(self) -> dict[str, Tensor]:
        """The weights of what is kept, as its library's checkpoints name them."""
        raise NotImplementedError

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)


@dataclasses.dataclass
class Progress:
    """How far a run is: steps done, seconds spent over all starts, number of starts, and on what, in order."""

    steps: int = 0
    seconds: float = 0.0
    starts: int = 1
    hardware: list[str] = dataclasses.field(default_factory=list)


class Run:
    """The training of an objective through its phases with AdamW (weight decay 0.05 on matrices).

    Args:
        checkpoint: is written as the run goes, and continued from if it exists; TensorBoard's events lie beside it.
        start: the checkpoint of another run of this objective whose state, optimizer included, this one starts from.
        watch: measures the objective as it is, {what: percentage}; called every tenth checkpoint, for TensorBoard.
        hardware: what it runs on, for the record of its progress.
        every: steps between checkpoints.

    Raises:
        UserError: a checkpoint is of another objective, or of a run with other phases or another seed.
    """

    def __init__(
        self,
        objective: Objective,
        phases: Sequence[Phase],
        checkpoint: Path,
        seed: int,
        start: Path | None = None,
        watch: Callable[[], dict[str, float]] | None = None,
        hardware: str = "CPU",
        every: int = 100,
    ):
        self.objective, self.phases, self.checkpoint, self.every = objective, list(phases), checkpoint, every
        self.watch = watch
        self.parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        groups = [
            {"params": [parameter for parameter in self.parameters if parameter.ndim > 1], "weight_decay": 0.05},
            {"params": [parameter for parameter in self.parameters if parameter.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
        self.generator = torch.Generator().manual_seed(seed)
        self.settings = {"phases": [dataclasses.asdict(phase) for phase in phases], "seed": seed, "start": str(start)}
        self.progress = Progress()
        if checkpoint.exists():
            self._resume()
        elif start is not None:
            state = checkpoint_of(objective, start)
            self.objective.load_state_dict(state["objective"])
            self.optimizer.load_state_dict(state["optimizer"])
        if self.progress.steps < self.steps and self.progress.hardware[-1:] != [hardware]:
            self.progress.hardware.append(hardware)

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def train(self) -> None:
        """Go on until the last step.

        Raises:
            FloatingPointError: the loss, or its gradient, is not finite.
        """
        name, progress = self.checkpoint.stem, self.progress
        started = time.monotonic() - progress.seconds
        bar = tqdm(initial=progress.steps, total=self.steps, desc=name, mininterval=10)
        with SummaryWriter(self.checkpoint.parent / name, purge_step=progress.steps) as writer, bar:
            while progress.steps < self.steps:
                phase, step = self.place(progress.steps)
                terms, norm = self.step(phase, step)
                if not norm.isfinite():
                    raise FloatingPointError(f"{name}: the gradient's norm is {norm.item()} at step {progress.steps}")
                progress.steps += 1
                if progress.steps % 10 == 0:
                    values = {term: value.item() for term, value in terms.items()}
                    for term, value in values.items():
                        writer.add_scalar(f"loss/{term}", value, progress.steps)
                    writer.add_scalar("gradient norm", norm.item(), progress.steps)
                    writer.add_scalar("learning rate", phase.rate(step), progress.steps)
                    shown = {term: f"{value:.3f}" for term, value in values.items()}
                    bar.set_postfix(phase=phase.name, **shown, refresh=False)
                bar.update()
                last = progress.steps == self.steps
                if self.watch is not None and (progress.steps % (10 * self.every) == 0 or last):
                    for what, value in self.watch().items():
                        writer.add_scalar(f"held-out scenes/{what}", value, progress.steps)
                if progress.steps % self.every == 0 or last:
                    progress.seconds = time.monotonic() - started
                    self._save()

    def place(self, done: int) -> tuple[Phase, int]:
        """The phase of the step after so many, and its number within it."""
        for phase in self.phases:
            if done < phase.steps:
                return phase, done
            done -= phase.steps
        raise IndexError(f"the run has {self.steps} steps")

    def step(self, phase: Phase, step: int) -> tuple[dict[str, Tensor], Tensor]:
        """One step of a phase: the terms of its loss, and the gradient's norm before it was clipped to 1."""
        for group in self.optimizer.param_groups:
            group["lr"] = phase.rate(step)
        self.optimizer.zero_grad()
        with attention(self.objective.device):
            terms = self.objective.losses(phase, self.generator)
            torch.stack(list(terms.values())).sum().backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.objective.after_step(phase, step / phase.steps)
        return {term: value.detach() for term, value in terms.items()}, norm

    def _save(self) -> None:
        with replacing(self.checkpoint) as partial:
            torch.save(
                {
                    "run": self.settings,
                    "progress": dataclasses.asdict(self.progress),
                    "objective": self.objective.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "generator": self.generator.get_state(),
                    "random": random_states(),
                },
                partial,
            )

    def _resume(self) -> None:
        state = checkpoint_of(self.objective, self.checkpoint)
        if state["run"] != self.settings:
            different = [key for key in self.settings if state["run"].get(key) != self.settings[key]]
            raise UserError(
                f"{self.checkpoint} belongs to a run with other {' and '.join(different)}; ask for the same, or delete "
                "it to start anew."
            )
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        restore_random_states(state["random"])
        self.progress = Progress(**state["progress"])
        self.progress.starts += self.progress.steps < self.steps


def attention(device: torch.device) -> contextlib.AbstractContextManager:
    """The plain kernel on a CPU, where the gradient of torch's fused one takes half of a step in bfloat16."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """
    Raises:
        UserError: the file is no checkpoint.
    """
    state = read_tensors(path)
    if not isinstance(state, dict) or not state.keys() >= {"run", "objective", "optimizer"}:
        raise UserError(f"{path} is no checkpoint of a pretraining: give the .pt file that one left in --work.")
    return state


def checkpoint_of(objective: Objective, path: Path) -> dict[str, Any]:
    """
    Raises:
        UserError: the file is no checkpoint, or that of another objective, or of other data.
    """
    state = read_checkpoint(path)
    theirs, ours = (
        {key: value.shape for key, value in each.items()} for each in (state["objective"], objective.state_dict())
    )
    if theirs != ours:
        raise UserError(
            f"{path} is the checkpoint of another miniature, or of another version of this one, or of other scenes."
        )
    return state


def random_states() -> dict[str, Tensor]:
    """Of the generators that dropped patches and the like are drawn from."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())

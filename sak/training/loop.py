"""The loop of one stage's training: its steps, with losses shown, evaluations and checkpoints between them.

Everything that is random depends on the seed, the stage and the step.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from omegaconf import DictConfig
from torch import Tensor, nn
from tqdm import tqdm

from sak.config.schema import ORDER
from sak.data.waiting import Waiting
from sak.evaluation.distributed import Agreement, RunningStatistics
from sak.evaluation.evaluate import to_device
from sak.interrupt import StopRequest
from sak.progress import progress_bar
from sak.training import checkpoint, sharding
from sak.training.batches import TrainingBatches
from sak.training.checkpoint import Progress
from sak.training.loss_record import GRADIENT, LossRecord
from sak.training.objectives import Objective
from sak.training.optimizer import Learner
from sak.training.schedule import learning_rate
from sak.training.tracking import Tracker


@dataclass
class Loop:
    """What is trained says what it minimises in `prepare`; what else happens around a step it adds in `show` and the
    methods after it.

    Attributes:
        stage: its name in the config.
        title: what the progress bar calls it.
        steps: of the whole stage.
        network: is trained in place.
        checkpoints: their directory.
        tracker: shows what happens; None but in the first process.
    """

    stage: str
    title: str
    steps: int
    config: DictConfig
    network: nn.Module
    batches: TrainingBatches
    accelerator: Accelerator
    agreement: Agreement
    checkpoints: Path
    tracker: Tracker | None

    def __post_init__(self):
        self.settings = self.config.stages[self.stage]
        self.evaluate_every: int | None = None  # steps; None: never between them

    def prepare(self, state: dict | None) -> Objective:
        """Choose which weights learn, `learn`, and give what is minimised.

        Args:
            state: of a checkpoint in this stage, out of which is taken what is gone on with.
        """
        raise NotImplementedError

    def show(self, done: Progress) -> None:
        """Beside the losses, as often as they are. All processes are asked."""

    def evaluate(self, done: Progress) -> None:
        """All processes are asked."""

    def begin_step(self) -> None:
        """Before the first of its micro-batches."""

    def end_step(self) -> None:
        """Before the weights move."""

    def states(self) -> dict:
        """What a checkpoint holds beside network and optimizer."""
        return {}

    def finish(self) -> None:
        """After the last step."""

    def learn(self, state: dict | None, together: int = 1) -> nn.Module:
        """Hand the network to its optimizer, with the state of a checkpoint; and what a training pass is called on.

        Args:
            together: processes that share running statistics.
        """
        sharded = sharding.is_sharded(self.config, self.accelerator.num_processes)
        self.learner = Learner(self.network, self.settings.optim, self.accelerator, sharded, state)
        model = self.learner.model.train()
        self.statistics = RunningStatistics(model, together, self.accelerator.process_index)
        return model

    def train(self, start: int, state: dict | None) -> None:
        """From the step ``start`` to the stage's end.

        Args:
            state: of the checkpoint at ``start``, out of which is taken what is gone on with; None where the stage
                begins.

        Raises:
            UserError: teachers, images or the disk do not do what is asked of them.
            KeyboardInterrupt: the user stopped it; a checkpoint was written.
            FloatingPointError: a loss became infinite or not a number.
        """
        settings, steps = self.settings, self.steps
        self.objective = self.prepare(state)
        progress = progress_bar(
            steps * settings.batch_size,
            self.title,
            done=start * settings.batch_size,
            shown=self.accelerator.is_main_process,
        )
        losses, batches = LossRecord(self.stage, self.mean), Waiting(self.batches.steps(start, steps))
        with StopRequest() as stop, progress:
            for step, micro_batches in enumerate(batches, start=start):
                # First thing after a resume too, if it belongs there.
                if self._is_evaluated_before(step):
                    losses.check()
                    self.learner.gather()
                    self.evaluate(Progress(self.stage, step))
                rate = learning_rate(settings.optim, step, steps, self.batches.steps_per_epoch)
                self.learner.set_rate(rate)
                terms = self._step(micro_batches, step)
                done = Progress(self.stage, step + 1)
                losses.add(done.step, terms)
                progress.update(settings.batch_size)
                if done.step % settings.log_every == 0 or done.step == steps:
                    terms = losses.read()
                    if self.tracker:
                        self._show_losses(self.tracker, done, terms, rate, batches.share(), progress)
                    self.show(done)
                stopping = self.agreement.any(stop.made)
                if done.step == steps or stopping or done.step % settings.checkpoint_every == 0:
                    losses.check()  # no checkpoint holds what followed a loss that was not finite
                    self.learner.gather()
                    self._save_checkpoint(done)
                if stopping:
                    raise KeyboardInterrupt(
                        f"stopped after step {done.step} of {steps} of the stage {self.stage}; "
                        "the same command goes on from there"
                    )
        self.finish()
        self.learner.release()

    def mean(self, values: Tensor) -> Tensor:
        """Over the processes. All must ask."""
        return self.accelerator.reduce(values, "mean")

    def _step(self, micro_batches: list[dict], step: int) -> dict[str, Tensor]:
        """One optimizer step. Nothing waits for the device.

        Returns:
            the terms of its loss, averaged over the micro-batches, and the norm of its gradient.
        """
        model = self.learner.model
        self.learner.optimizer.zero_grad()
        self.begin_step()
        summed: dict[str, Tensor] = {}
        for number, batch in enumerate(micro_batches):
            # What is random in it depends on nothing that came before, and not on which process computes it: there is
            # no random state to save or restore.
            part = number * self.accelerator.num_processes + self.accelerator.process_index
            torch.manual_seed(_seed(self.config.seed, ORDER.index(self.stage), step, part))
            batch = to_device(batch, self.accelerator.device)
            accumulating = number < len(micro_batches) - 1
            with self.statistics.of_all():
                with self.accelerator.autocast(), self.accelerator.no_sync(model) if accumulating else nullcontext():
                    total, terms = self.objective(model, batch)
                self.accelerator.backward(total / len(micro_batches))
            for name, term in {"total": total, **terms}.items():
                summed[name] = summed.get(name, 0) + term.detach() / len(micro_batches)
        self.end_step()
        return {**summed, GRADIENT: self.learner.step()}

    def _is_evaluated_before(self, step: int) -> bool:
        return self.evaluate_every is not None and step > 0 and step % self.evaluate_every == 0

    def _save_checkpoint(self, done: Progress) -> None:
        self.accelerator.wait_for_everyone()
        states = self.learner.states()
        if self.accelerator.is_main_process:
            state = {checkpoint.NETWORK: self.network.state_dict(), **states, **self.states()}
            checkpoint.save(self.checkpoints, done, state, self.settings.keep_last)

    def _show_losses(
        self, tracker: Tracker, done: Progress, terms: Mapping[str, float], rate: float, waited: float, progress: tqdm
    ) -> None:
        terms = dict(terms)
        gradient = terms.pop(GRADIENT)
        speed = progress.format_dict["rate"] or (progress.n - progress.initial) / max(
            progress.format_dict["elapsed"], 1e-9
        )
        figures = {"learning_rate": rate, GRADIENT: gradient, "images_per_second": speed, "data_wait": waited}
        tracker.scalars({**{f"loss/{name}": value for name, value in terms.items()}, **figures}, done)
        tasks = {name.removeprefix("task/"): value for name, value in terms.items() if name.startswith("task/")}
        distilled = [value for name, value in terms.items() if name.startswith("distill/")]
        shown = {"loss": terms["total"], **tasks, **({"distill": sum(distilled)} if distilled else {})}
        postfix = {name: f"{value:.3g}" for name, value in shown.items()}
        progress.set_postfix({**postfix, "data wait": f"{waited:.0%}"}, refresh=False)


def _seed(*numbers: int) -> int:
    """64 bits that differ wherever one of the numbers does."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])

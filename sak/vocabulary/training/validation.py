"""The evaluations of a run of the stage ``vocabulary``: losses, blindness, metrics, and pictures of what is read."""

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from omegaconf import DictConfig

from sak.config.schema import VOCABULARY
from sak.data.loading import Samples, evenly_spread, load, packed
from sak.data.transforms import finish
from sak.evaluation.evaluate import to_device
from sak.training.checkpoint import Progress
from sak.training.run_directory import RunDirectory
from sak.training.tracking import Tracker
from sak.vocabulary.evaluate import Report, blind, evaluate
from sak.vocabulary.model import VocabularyModel
from sak.vocabulary.training.blindness import Losses, losses
from sak.vocabulary.training.panel import draw

SHOWN = 6  # samples of a panel


class Part:
    """Some of a data set's samples, the same in every epoch."""

    def __init__(self, dataset: Samples, indices: list[int]):
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict:
        return self.dataset[self.indices[index]]

    def packed(self, index: int) -> dict:
        return packed(self.dataset, self.indices[index])

    def set_epoch(self, epoch: int) -> None:
        """Nothing changes."""


class Validation:
    """
    Args:
        dataset: of the split val.
    """

    def __init__(self, config: DictConfig, run: RunDirectory, dataset: Samples, accelerator: Accelerator):
        self.config, self.run, self.dataset, self.accelerator = config, run, dataset, accelerator
        stage = config.stages.vocabulary
        share = stage.batch_size // (stage.accumulate * accelerator.num_processes)
        self.batch_size = config.evaluation.batch_size or max(1, share)

    def evaluate(
        self, model: VocabularyModel, done: Progress, tracker: Tracker | None, samples: int | None = None
    ) -> Report:
        """All processes must ask; what is generated, the first one alone generates.

        Args:
            tracker: shows it; None but in the first process.
            samples: evenly spread; None: all.

        Returns:
            the metrics by kind, of the first process, as of `sak.vocabulary.evaluate`, and under "loss" the losses.
        """
        part = Part(self.dataset, evenly_spread(len(self.dataset), samples))
        model.eval()
        found = losses(model, self._batches(part), self.accelerator)
        report: Report = {}
        if tracker is not None:
            self._show_losses(found, done, tracker)
            how = {"batch_size": self.batch_size, "samples": samples, "workers": self.config.data.workers}
            with self.accelerator.autocast():
                report = evaluate(model, self.dataset, progress=samples is None, **how)
                self._show_samples(model, done, tracker)
            for sentence in blind(report) if samples is None else ():
                warnings.warn(sentence, stacklevel=2)
            report["loss"] = {"own": found.own, "shuffled": found.shuffled, "cut": float(found.cut)}
            flat = {
                f"metrics/{kind}/{name}": value for kind, values in report.items() for name, value in values.items()
            }
            tracker.scalars(flat, done)
        self.accelerator.wait_for_everyone()
        model.train()
        return report

    def _batches(self, part: Part) -> Iterator[dict[str, Any]]:
        """This process's, on its device. Neighbours stay together: shuffling is within a process."""
        mine = evenly_spread(len(part))[self.accelerator.process_index :: self.accelerator.num_processes]
        groups = [mine[start : start + self.batch_size] for start in range(0, len(mine), self.batch_size)]
        for batch in load(part, groups, self.config.data.workers, self.config.data.timeout):
            yield to_device(batch, self.accelerator.device)

    def _show_losses(self, found: Losses, done: Progress, tracker: Tracker) -> None:
        tracker.scalars({"blindness/own": found.own, "blindness/shuffled": found.shuffled}, done)
        if found.blind:
            warnings.warn(
                f"after step {done.step} the model does not look at its images: its loss is {found.shuffled:.4g} where "
                f"others are shown, and {found.own:.4g} where their own are; if that stays so, it needs more steps, "
                "shorter answers, larger letters or another learning rate (docs/vocabulary.md)",
                stacklevel=2,
            )
        if found.cut:
            tokens = f"{found.cut} answers are longer than the context, and lost their ends: see vocabulary.context"
            warnings.warn(tokens, stacklevel=2)

    def _show_samples(self, model: VocabularyModel, done: Progress, tracker: Tracker) -> None:
        chosen = [finish(packed(self.dataset, index)) for index in evenly_spread(len(self.dataset), SHOWN)]
        images = torch.stack([sample["image"] for sample in chosen])
        prompts, truths = ([sample[key] for sample in chosen] for key in ("prompt", "answer"))
        longest = max(len(model.tokenizer(truth).input_ids) for truth in truths)
        read = model.generate(images.to(self.accelerator.device), prompts, max_new_tokens=2 * longest + 8)
        figure = draw(images, prompts, truths, read)
        tracker.figure("reading", {VOCABULARY: figure}, self.run.panels, done)

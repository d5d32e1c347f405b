"""The training of a vision vocabulary, and of the model that reads through it: one stage, by the loop of all."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from sak.config.derived import number_of_steps
from sak.config.schema import VOCABULARY
from sak.data.loading import Samples, evenly_spread
from sak.evaluation.distributed import Agreement, build_accelerator
from sak.files import replacing
from sak.student.hub import WEIGHTS
from sak.training import checkpoint
from sak.training.batches import TrainingBatches
from sak.training.checkpoint import Progress
from sak.training.loop import Loop
from sak.training.objectives import Objective
from sak.training.run_directory import RunDirectory, carry_out
from sak.training.tracking import Tracker
from sak.vocabulary import data
from sak.vocabulary.language_model import TOKENIZER, read_tokenizer
from sak.vocabulary.model import VocabularyModel
from sak.vocabulary.training.build import build_model, build_tokenizer
from sak.vocabulary.training.results import write_results
from sak.vocabulary.training.validation import Part, Validation
from teachers.weights import sha256_of

TEXTS = 1000  # samples whose texts a tokenizer is trained on


def train(config: DictConfig) -> RunDirectory:
    """Run the stage to its end: see `carry_out`."""
    return carry_out(config, Experiment)


@dataclass
class VocabularyTraining(Loop):
    """
    Attributes:
        validation: evaluates the model.
    """

    network: VocabularyModel
    validation: Validation

    def __post_init__(self):
        super().__post_init__()
        self.evaluate_every = self.settings.evaluate_every
        self.cut = 0  # answers of this start's samples, in this process

    def prepare(self, state: dict | None) -> Objective:
        self.network.freeze(self.config.vocabulary.network.frozen)
        self.learn(state)
        return self._objective

    def show(self, done: Progress) -> None:
        if self.tracker:
            self.tracker.scalars({"cut_answers": self.cut}, done)

    def evaluate(self, done: Progress) -> None:
        self.validation.evaluate(self.network, done, self.tracker, self.settings.evaluate_samples)

    def finish(self) -> None:
        if self.cut:
            self.accelerator.print(f"{self.cut} answers were longer than the context, and lost their ends")

    def _objective(self, model: nn.Module, batch: Mapping) -> tuple[Tensor, dict[str, Tensor]]:
        output = model(batch["image"], batch["prompt"], batch["answer"])
        self.cut += output.cut
        return output.loss, {"answer": output.loss}


class Experiment:
    """The parts of one run, and their order."""

    def __init__(self, config: DictConfig, run: RunDirectory):
        self.config, self.run = config, run
        settings = config.stages.vocabulary
        self.accelerator = build_accelerator(config.precision, config.data.timeout)
        self.agreement = Agreement(self.accelerator.num_processes)
        with self.accelerator.main_process_first():  # which may render for all
            samples, val = (data.build(config.vocabulary.data, split) for split in ("train", "val"))
        with self.accelerator.main_process_first():
            tokenizer = self._tokenizer(samples)
        self.model, start = build_model(config, tokenizer)
        if checkpoint.newest(run.checkpoints) is None:
            self.accelerator.print(f"the model starts with {start}; {self.model.vision_tokens} tokens an image")
        self.steps = number_of_steps(settings, len(samples))
        self.batches = TrainingBatches(
            Part(samples, list(range(len(samples)))),
            settings.batch_size,
            settings.accumulate,
            config.seed,
            config.data.workers,
            self.accelerator.process_index,
            self.accelerator.num_processes,
            config.data.timeout,
            shuffle=False,  # what is drawn may become harder from sample to sample
        )
        self.validation = Validation(config, run, val, self.accelerator)
        inputs = self._inputs()
        run.check_inputs(inputs)
        self.accelerator.wait_for_everyone()  # all have looked before the first one writes
        if self.accelerator.is_main_process:
            run.open(config, inputs)
            if config.vocabulary.language_model.tokens is not None:
                with replacing(run.path / TOKENIZER) as partial:
                    tokenizer.backend_tokenizer.save(str(partial))

    def finish(self) -> None:
        """Train what is left, evaluate, and write the bundle and the results."""
        keep = {VOCABULARY: self.config.stages.vocabulary.keep_last}
        found = checkpoint.take_up(self.run.checkpoints, keep, self.accelerator)
        state = None
        if found is not None:
            path, state = found
            checkpoint.load_network(self.model, path, state)
            if self.accelerator.scaler is not None and (scaler := state.pop("scaler")):
                self.accelerator.scaler.load_state_dict(scaler)
            self.accelerator.print(f"going on from {path}")
        start, end = state["step"] if state else 0, Progress(VOCABULARY, self.steps)
        main = self.accelerator.is_main_process
        tracker = (
            Tracker(self.config, self.run, {VOCABULARY: self.steps}, Progress(VOCABULARY, start)) if main else None
        )
        if start < self.steps:
            training = VocabularyTraining(
                VOCABULARY,
                VOCABULARY,
                self.steps,
                self.config,
                self.model,
                self.batches,
                self.accelerator,
                self.agreement,
                self.run.checkpoints,
                tracker,
                self.validation,
            )
            training.train(start, state)
        self.model.to(self.accelerator.device)
        report = self.validation.evaluate(self.model, end, tracker)
        if tracker:
            write_results(self.config, self.run, self.model, report)
            tracker.text("run/results", self.run.results.read_text(encoding="utf-8"))
            tracker.close()

    def _tokenizer(self, samples: Samples) -> PreTrainedTokenizerBase:
        """That of an earlier start of the run, or a new one."""
        kept = self.run.path / TOKENIZER
        if kept.is_file():
            return read_tokenizer(kept)
        chosen = (samples[index] for index in evenly_spread(len(samples), TEXTS))
        return build_tokenizer(self.config, (sample[key] for sample in chosen for key in ("prompt", "answer")))

    def _inputs(self) -> dict[str, str]:
        """{what: what tells it from others} of the weights that the run reads but does not hold itself."""
        inputs = {}
        for key in ("network.weights", "weights", "branch.student"):
            place = OmegaConf.select(self.config.vocabulary, key)
            files = [Path(place, "student", WEIGHTS), Path(place, WEIGHTS), Path(place)] if place else []
            if file := next((file for file in files if file.is_file()), None):
                inputs[f"vocabulary.{key}"] = sha256_of(file)[:16]
        return inputs

"""What each frozen model is good at: the same small heads on its features, one for each task, and nothing else trained.

SAK (arXiv 2410.14633) shows the teachers' biases in this way. Features are those of the evaluation's view of the
images, computed once per model; as they cannot be flipped or cropped afterwards, heads learn without augmentation.

A cell is one model and one task.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from sak import config as configuration
from sak import data
from sak.bundles.build import build_tasks
from sak.data import loading
from sak.errors import UserError
from sak.evaluation.distributed import build_accelerator
from sak.evaluation.evaluate import Metrics, constant_predictions, to_device
from sak.files import replacing, write_json, write_text
from sak.research.frozen_models import build_models, digest, models_to_probe
from sak.research.probing import report
from sak.research.probing.features import Features, Probed
from sak.research.probing.head import ProbeHead
from sak.tasks import Task
from sak.training.run_directory import lock
from sak.training.schedule import adamw, learning_rate

SPLITS = ("train", "val")


class Probe:
    """The probing of all models of a config on all its tasks.

    `<output>/<name>-probe/` holds
        cells/       metrics of each cell with the settings they came from; a cell that is there is done
        features/    of the model at work; deleted after its last cell unless `probe.keep_features`
        events/      TensorBoard: losses and metrics of each cell, the figure
        probe.json   {model: {task: {metric: value}}}, the same relative to the reference, constant predictions
        probe.md     the tables
        probe.png    the figure

    Raises:
        UserError: there is nothing to probe, something in the config or the data is wrong, or the directory holds
            cells of other settings.
    """

    def __init__(self, config: DictConfig):
        self.config, self.settings = config, config.probe
        self.accelerator = build_accelerator(config.precision)
        if self.accelerator.num_processes > 1:
            raise UserError("probing runs in one process; start it without torchrun or accelerate launch")
        specs = models_to_probe(config)
        if not specs:
            raise UserError("there is nothing to probe: the config has neither teachers nor probe.extra")
        self.tasks = build_tasks(config)
        self.models = build_models(specs, config.seed)
        for model in self.models.values():
            self._head(model.dims, next(iter(self.tasks.values())))  # now, not after the features: it may not exist
        data.prepare(config.data)
        self.images = {split: self._labelled(split, []) for split in SPLITS}
        self.labels = {task: {split: self._labelled(split, [task]) for split in SPLITS} for task in self.tasks}

        self.path = Path(config.output) / f"{config.name}-probe"
        shared = _shared_settings(config)
        self.origins = {
            name: {**shared, "model": OmegaConf.to_container(OmegaConf.structured(spec)), "weights": digest(model)}
            for (name, spec), model in zip(specs.items(), self.models.values(), strict=True)
        }
        self.todo = {name: [task for task in self.tasks if not self._is_done(name, task)] for name in self.models}

    def finish(self) -> Path:
        """Probe every cell that is not done yet, then write tables and figure.

        Returns:
            the file with the tables.

        Raises:
            KeyboardInterrupt: the user stopped it; finished cells and extracted features are kept.
            FloatingPointError: a loss or a feature is not finite.
        """
        self._lock = lock(self.path)
        total, left = len(self.models) * len(self.tasks), sum(map(len, self.todo.values()))
        if left < total:
            print(f"{total - left} of {total} cells are done already")
        steps = self.settings.steps
        progress = tqdm(
            total=left * steps * self.settings.batch_size, desc="probe", unit="img", mininterval=1, dynamic_ncols=True,
            disable=not left,
        )  # fmt: skip
        try:
            with progress:
                for name, tasks in self.todo.items():
                    if tasks:
                        self._probe_model(name, tasks, progress)
        except KeyboardInterrupt:
            done = sum(self._cell(name, task).is_file() for name in self.models for task in self.tasks)
            raise KeyboardInterrupt(
                f"stopped with {done} of {total} cells done; the same command goes on from there"
            ) from None
        return self._write_results()

    # --- one model, one cell ------------------------------------------------------------------------------------------

    def _probe_model(self, name: str, tasks: list[str], progress: tqdm) -> None:
        model = self.models[name].to(self.accelerator.device)
        size = tuple(self.config.data.image_size)
        shapes = [(dim, *model.grid(*size, level)) for level, dim in enumerate(model.dims)]
        counts = {split: len(images) for split, images in self.images.items()}
        key = hashlib.sha256(json.dumps(self.origins[name], sort_keys=True).encode()).hexdigest()[:8]
        features = Features(self.path / "features" / f"{name}-{key}", shapes, counts)
        features.extract(model, self.images, self.settings.batch_size, self.config.data.workers, self.accelerator, name)
        model.cpu()
        for task in tasks:
            progress.set_description(f"{name}, {task}")
            metrics = self._probe_cell(name, self.tasks[task], features, model.dims, progress)
            write_json(self._cell(name, task), {"origin": self.origins[name], "metrics": metrics})
        if not self.settings.keep_features:
            features.delete()

    def _probe_cell(
        self, name: str, task: Task, features: Features, dims: list[int], progress: tqdm
    ) -> dict[str, float]:
        """Train a head from the seed on, and judge it."""
        settings, seed = self.settings, self.config.seed
        image_size = tuple(self.config.data.image_size)
        torch.manual_seed(seed)
        probe = self._head(dims, task).to(self.accelerator.device).train()
        optimizer = adamw(probe, settings.optim)
        sets = {split: Probed(features, split, self.labels[task.name][split]) for split in SPLITS}
        workers = self.config.data.workers
        batches = loading.TrainingBatches(sets["train"], settings.batch_size, 1, seed, workers, rank=0, world=1)
        events = self.path / "events" / name / task.name
        shutil.rmtree(events, ignore_errors=True)  # of a start that was stopped
        with SummaryWriter(events) as writer:
            for step, (batch,) in enumerate(batches.steps(0, settings.steps)):
                rate = learning_rate(settings.optim, step, settings.steps, batches.steps_per_epoch)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                batch = to_device(batch, self.accelerator.device)
                with self.accelerator.autocast():
                    output = probe([level.to(self.accelerator.device) for level in batch["features"]], image_size)
                loss = task.loss(output, batch[task.name])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                progress.update(settings.batch_size)
                if (step + 1) % settings.log_every == 0 or step + 1 == settings.steps:
                    if not loss.isfinite():
                        raise FloatingPointError(
                            f"the loss of {task.name} on {name} is {loss.item()} at step {step + 1}; "
                            "try a lower probe.optim.lr"
                        )
                    writer.add_scalar(f"loss/{task.name}", loss.item(), step + 1)
                    progress.set_postfix(loss=f"{loss.item():.3g}", refresh=False)
            metrics = self._judge(probe, task, sets["val"], f"{name}, {task.name}: evaluate")
            for measure, value in metrics.items():
                writer.add_scalar(f"metrics/{task.name}/{measure}", value, settings.steps)
        return metrics

    @torch.no_grad()
    def _judge(self, probe: ProbeHead, task: Task, dataset: Dataset, title: str) -> dict[str, float]:
        probe.eval()
        metric = task.new_metric().to(self.accelerator.device)
        size, batch_size = len(dataset), self.settings.batch_size
        batches = [range(start, min(start + batch_size, size)) for start in range(0, size, batch_size)]
        loaded = loading.load(dataset, batches, self.config.data.workers)
        for batch in tqdm(loaded, title, len(batches), leave=False, mininterval=1, unit="batch"):
            batch = to_device(batch, self.accelerator.device)
            with self.accelerator.autocast():
                output = probe(
                    [level.to(self.accelerator.device) for level in batch["features"]],
                    tuple(self.config.data.image_size),
                )
            metric.update(task.predict(output.float()), task.truth(batch))
        return task.measured(metric)

    def _head(self, dims: list[int], task: Task) -> ProbeHead:
        settings = self.settings
        options = OmegaConf.to_container(settings.head.options)
        try:
            return ProbeHead(dims, settings.width, task.channels, settings.head.type, options)
        except ValueError as error:
            raise UserError(f"probe.head: {error}") from error

    # --- what is done, and what people see ----------------------------------------------------------------------------

    def _labelled(self, split: str, tasks: list[str]) -> Dataset:
        return data.build(OmegaConf.merge(self.config.data, {"tasks": tasks}), split)

    def _cell(self, name: str, task: str) -> Path:
        return self.path / "cells" / f"{name}.{task}.json"

    def _is_done(self, name: str, task: str) -> bool:
        file = self._cell(name, task)
        if not file.is_file():
            return False
        before = json.loads(file.read_text())["origin"]
        if changed := configuration.differences(OmegaConf.create(self.origins[name]), OmegaConf.create(before)):
            raise UserError(
                f"{file} was measured with other settings ({', '.join(changed[:3])}); "
                "choose another name or output, or delete it to measure it again"
            )
        return True

    def _metrics(self) -> dict[str, Metrics]:
        return {
            name: {task: json.loads(self._cell(name, task).read_text())["metrics"] for task in self.tasks}
            for name in self.models
        }

    def _constants(self) -> Metrics:
        """Of the tasks; those that are on disk already are not computed again."""
        file = self.path / "constants.json"
        known = json.loads(file.read_text()) if file.is_file() else {}
        if missing := {name: task for name, task in self.tasks.items() if name not in known}:
            dataset = self._labelled("val", list(missing))
            workers = self.config.data.workers
            known |= constant_predictions(missing, dataset, self.settings.batch_size, workers, self.accelerator)
            write_json(file, known)
        return {name: known[name] for name in self.tasks}

    def _write_results(self) -> Path:
        metrics, constants, reference = self._metrics(), self._constants(), self.settings.reference
        relative = report.relative(metrics, reference) if reference else {}
        text = report.markdown(self.config.name, self.tasks, metrics, constants, relative, reference)
        figure = report.figure(self.tasks, metrics, relative, reference)
        with replacing(self.path / "probe.png") as beside:
            figure.savefig(beside, format="png")
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        with SummaryWriter(self.path / "events") as writer:
            writer.add_image("probe", np.asarray(canvas.buffer_rgba())[..., :3], dataformats="HWC")
        write_json(
            self.path / "probe.json",
            {"reference": reference, "metrics": metrics, "relative": relative, "constants": constants},
        )
        write_text(self.path / "probe.md", text)
        print(report.console(self.tasks, metrics, constants, relative, reference))
        return self.path / "probe.md"


def _shared_settings(config: DictConfig) -> dict:
    """What the numbers of every cell depend on."""
    probe = OmegaConf.to_container(config.probe)
    dataset = OmegaConf.to_container(config.data)
    return {
        "seed": config.seed,
        "precision": config.precision,
        "data": {key: dataset[key] for key in ("dataset", "root", "image_size", "renderer")},
        "probe": {key: probe[key] for key in ("steps", "batch_size", "width", "head", "optim")},
    }

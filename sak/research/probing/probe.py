"""What each frozen model is good at: the same small heads on its features, one for each task, and nothing else trained.

SAK (arXiv 2410.14633) shows the teachers' biases in this way. Features are those of the evaluation's view of the
images, computed once per model; as they cannot be flipped or cropped afterwards, heads learn without augmentation.

A cell is one model and one task.
"""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from sak import config as configuration
from sak import data
from sak.bundles.build import build_tasks
from sak.config.schema import mixed_precision, plain
from sak.errors import UserError
from sak.evaluation.constants import KEPT, kept_constants
from sak.evaluation.distributed import build_accelerator, settled
from sak.files import read_json, write_json, write_text
from sak.metrics import Metrics
from sak.plotting import pixels, save
from sak.progress import progress_bar
from sak.research.frozen_models import build_models, models_to_probe
from sak.research.probing import report
from sak.research.probing.cell import build_head, probe_cell
from sak.research.probing.samples import Samples
from sak.training.run_directory import lock
from teachers.fingerprints import spec_facts, teacher_facts

CELL = ("origin", "metrics")  # what its file holds
# Where weights and images lie is no matter: both are told apart by what they are.
LOCATIONS = ("data.root", "model.weights")


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
        config = settled(config)
        self.config, self.settings = config, config.probe
        self.accelerator = build_accelerator(config.precision)
        if self.accelerator.num_processes > 1:
            raise UserError("probing runs in one process; start it without torchrun or accelerate launch")
        specs = models_to_probe(config)
        if not specs:
            raise UserError("there is nothing to probe: the config has neither teachers nor probe.extra")
        self.tasks = build_tasks(config.data)
        self.models = build_models(specs)
        for model in self.models.values():
            build_head(
                config, model.dims, next(iter(self.tasks.values()))
            )  # now, not after the features: it may not exist
        self.samples = Samples(config, self.tasks)

        self.path = Path(config.output) / f"{config.name}-probe"
        shared = shared_settings(config)
        self.origins = {
            name: {
                **shared,
                "images": self.samples.hashes,
                "model": spec_facts(plain(OmegaConf.structured(spec))),
                **teacher_facts(model, config.data.image_size),
            }
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
        progress = progress_bar(left * steps * self.settings.batch_size, "probe", shown=left > 0)
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
        model = self.models[name]
        place = self.path / "features" / name
        features = self.samples.features(model, place, self.origins[name], name, self.accelerator)
        for task in tasks:
            progress.set_description(f"{name}, {task}")
            sets = self.samples.with_labels(features, task)
            events = self.path / "events" / name / task
            chosen = self.tasks[task]
            metrics = probe_cell(self.config, name, chosen, model.dims, sets, events, self.accelerator, progress)
            write_json(self._cell(name, task), {"origin": self.origins[name], "metrics": metrics})
        if not self.settings.keep_features:
            features.delete()

    # --- what is done, and what people see ----------------------------------------------------------------------------

    def _cell(self, name: str, task: str) -> Path:
        return self.path / "cells" / f"{name}.{task}.json"

    def _is_done(self, name: str, task: str) -> bool:
        file = self._cell(name, task)
        if not file.is_file():
            return False
        before = read_json(file, CELL)["origin"]
        now = {**self.origins[name], "images": self.origins[name]["images"] if "images" in before else None}
        before.setdefault("images", None)  # of a cell that is older than this entry
        changed = configuration.differences(OmegaConf.create(now), OmegaConf.create(before))
        if changed := [key for key in changed if key not in LOCATIONS]:
            raise UserError(
                f"{file} was measured with other settings ({', '.join(changed[:3])}); "
                "choose another name or output, or delete it to measure it again"
            )
        return True

    def _metrics(self) -> dict[str, Metrics]:
        return {
            name: {task: read_json(self._cell(name, task), CELL)["metrics"] for task in self.tasks}
            for name in self.models
        }

    def _constants(self) -> Metrics:
        """Of the tasks; those that are on disk already are not computed again."""
        file = self.path / "constants.json"
        known = read_json(file) if file.is_file() else {}
        if missing := {name: task for name, task in self.tasks.items() if name not in known}:
            dataset = data.build(self.config.data, "val", tasks=list(missing))
            workers = self.config.data.workers
            folder = Path(self.config.output) / KEPT
            known |= kept_constants(folder, missing, dataset, self.settings.batch_size, workers, self.accelerator)
            write_json(file, known)
        return {name: known[name] for name in self.tasks}

    def _write_results(self) -> Path:
        metrics, constants, reference = self._metrics(), self._constants(), self.settings.reference
        relative = report.relative(self.tasks, metrics, reference) if reference else {}
        text = report.markdown(self.config.name, self.tasks, metrics, constants, relative, reference)
        picture = pixels(report.figure(self.tasks, metrics, relative, reference, constants))
        save(picture, self.path / "probe.png")
        with SummaryWriter(self.path / "events") as writer:
            writer.add_image("probe/figure", picture, dataformats="HWC")
            writer.add_text("probe/results", text)
        write_json(
            self.path / "probe.json",
            {"reference": reference, "metrics": metrics, "relative": relative, "constants": constants},
        )
        write_text(self.path / "probe.md", text)
        print(report.console(self.tasks, metrics, constants, relative, reference))
        return self.path / "probe.md"


def shared_settings(config: DictConfig) -> dict:
    """What the numbers of every cell depend on."""
    probe = plain(config.probe)
    dataset = plain(config.data)
    return {
        "seed": config.seed,
        "precision": mixed_precision(config.precision),
        "data": {key: dataset[key] for key in ("dataset", "root", "image_size", "renderer")}
        | {key: dataset[key] for key in ("classes", "labels") if dataset[key]},  # of own data
        "probe": {key: probe[key] for key in ("steps", "batch_size", "width", "head", "optim")},
    }

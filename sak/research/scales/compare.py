"""S2's own questions (arXiv 2403.13043), on any config: a small frozen model at several scales beside a larger one.

The same heads as in probing learn on each way of looking (`views`), from several seeds; operations are counted; linear
maps say how much of the large model's features the small one's hold; classes say for whom scales help.

A cell is one view, one task and one seed.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from tqdm import tqdm

from sak.bundles.build import build_pictures, build_tasks
from sak.config.schema import plain, teacher_spec
from sak.data import SPLITS
from sak.errors import UserError
from sak.evaluation.distributed import build_accelerator, settled
from sak.evaluation.evaluate import Keep
from sak.files import read_json, write_json, write_text
from sak.labels import IGNORE
from sak.metrics.miou import MeanIoU
from sak.metrics.similarity import linear_reconstruction
from sak.plotting import save
from sak.progress import progress_bar
from sak.research.probing.cell import build_head, probe_cell
from sak.research.probing.probe import shared_settings
from sak.research.probing.samples import Samples
from sak.research.scales import report
from sak.research.scales.views import View, build, gflop, views
from sak.research.similarity.features import collect
from sak.tasks.semseg import Segmentation
from sak.training.run_directory import lock
from teachers.fingerprints import spec_facts, teacher_facts

CELL = ("origin", "metrics")  # what its file holds


class Comparison:
    """`<output>/<name>-scales/` holds
        cells/        metrics of each cell with the settings they came from; a cell that is there is done
        features/     of the view at work; deleted after its last cell
        events/       TensorBoard: losses and metrics of each cell
        scales.json   all numbers
        scales.md, scales.png   tables and figure

    Args:
        small, large: names of models of the config's teachers or `probe.extra`.
        ceiling: another large model, trained alike: what it explains of the large one is what can be explained.
        scales: whole numbers from 1 on, of which the first, the first two, ... are compared.
        seeds: of the heads.
        images: of each split, evenly spread, on which linear maps are fitted and measured.

    Raises:
        UserError: a model does not exist, or something in the config or the data is wrong.
    """

    def __init__(
        self,
        config: DictConfig,
        small: str,
        large: str,
        ceiling: str | None = None,
        scales: Sequence[int] = (1, 2, 3),
        seeds: Sequence[int] = (0, 1, 2),
        images: int = 300,
    ):
        if len(scales) < 2 or scales[0] != 1 or list(scales) != sorted(set(scales)):
            raise UserError(f"the scales are {list(scales)}, but must be 1 and larger ones, increasing, as in 1,2,3")
        if len({small, large, ceiling}) < 3:
            raise UserError(f"small, large and ceiling are {small}, {large} and {ceiling}: name different models")
        config = settled(config)
        self.config, self.seeds, self.count = config, list(seeds), images
        self.accelerator = build_accelerator(config.precision)
        self.tasks = build_tasks(config.data)
        self.views = views(small, large, ceiling, scales)
        self.small, self.large, self.ceiling = self.views[0], View(large), View(ceiling) if ceiling else None
        self.models = build(config, self.views)
        if len(levels := {len(model.levels) for model in self.models.values()}) > 1:
            raise UserError(f"the models have different numbers of levels, {sorted(levels)}: give them as many")
        for model in self.models.values():
            build_head(config, model.dims, next(iter(self.tasks.values())))  # it may not exist, which is told now
        size = config.data.image_size
        self.gflop = {view.name: gflop(model, *size) for view, model in self.models.items()}
        self.samples = Samples(config, self.tasks)
        self.path = Path(config.output) / f"{config.name}-scales"
        shared = {key: value for key, value in shared_settings(config).items() if key != "seed"}
        shared["data"] = {key: value for key, value in shared["data"].items() if key != "root"}
        shared["images"] = self.samples.hashes
        specs = {**config.teachers, **config.probe.extra}
        self.origins = {
            view: {
                **shared,
                "model": _without_place(spec_facts(plain(OmegaConf.structured(teacher_spec(specs[view.model]))))),
                "view": [list(view.scales), view.split, view.merge],
                **teacher_facts(model, size),
            }
            for view, model in self.models.items()
        }
        cells = [(view, task, seed) for view in self.views for task in self.tasks for seed in self.seeds]
        self.todo = [cell for cell in cells if not self._is_done(*cell)]
        self.total = len(cells)

    def finish(self) -> Path:
        """Measure every cell that is not done yet, then write tables and figure.

        Returns:
            the file with the tables.

        Raises:
            KeyboardInterrupt: the user stopped it; finished cells and extracted features are kept.
            FloatingPointError: a loss or a feature is not finite.
        """
        if len(self.todo) < self.total:
            print(f"{self.total - len(self.todo)} of {self.total} cells are done already")
        work = len(self.todo) * self.config.probe.steps * self.config.probe.batch_size
        try:
            with lock(self.path):
                with progress_bar(work, "scales", shown=bool(self.todo)) as progress:
                    for view in self.views:
                        if cells := [(task, seed) for other, task, seed in self.todo if other == view]:
                            self._measure(view, cells, progress)
                return self._write()
        except KeyboardInterrupt:
            done = sum(self._cell(v, t, s).is_file() for v in self.views for t in self.tasks for s in self.seeds)
            raise KeyboardInterrupt(
                f"stopped with {done} of {self.total} cells done; the same command goes on from there"
            ) from None

    # --- cells --------------------------------------------------------------------------------------------------------

    def _measure(self, view: View, cells: Sequence[tuple[str, int]], progress: tqdm) -> None:
        model, place = self.models[view], self.path / "features" / view.key
        features = self.samples.features(model, place, self.origins[view], view.name, self.accelerator)
        for task, seed in cells:
            progress.set_description(f"{view.name}, {task}, seed {seed}")
            sets = self.samples.with_labels(features, task)
            seeded = self.config.copy()
            seeded.seed = seed
            chosen, classes = self.tasks[task], None
            if isinstance(chosen, Segmentation):
                classes = MeanIoU(chosen.channels).to(self.accelerator.device)
            events = self.path / "events" / view.key / f"{task}-{seed}"
            metrics = probe_cell(
                seeded, view.name, chosen, model.dims, sets, events, self.accelerator, progress, _counting(classes)
            )
            result: dict[str, Any] = {"origin": self.origins[view], "metrics": metrics}
            if classes is not None:
                result["confusion"] = classes.confusion.tolist()
            write_json(self._cell(view, task, seed), result)
        features.delete()

    def _cell(self, view: View, task: str, seed: int) -> Path:
        return self.path / "cells" / f"{view.key}.{task}.{seed}.json"

    def _is_done(self, view: View, task: str, seed: int) -> bool:
        file = self._cell(view, task, seed)
        if not file.is_file():
            return False
        if read_json(file, CELL)["origin"] != json.loads(json.dumps(self.origins[view])):
            raise UserError(
                f"{file} was measured with other settings or weights; choose another name or output, or delete it to "
                "measure it again"
            )
        return True

    # --- what is made of them -----------------------------------------------------------------------------------------

    def _write(self) -> Path:
        cells = {
            view.name: {
                seed: {task: read_json(self._cell(view, task, seed), CELL) for task in self.tasks}
                for seed in self.seeds
            }
            for view in self.views
        }
        content = {
            "small": self.small.name,
            "large": self.large.name,
            "ceiling": self.ceiling.name if self.ceiling else None,
            "seeds": self.seeds,
            "gflop": self.gflop,
            "metrics": {
                name: {seed: {task: cell["metrics"] for task, cell in found.items()} for seed, found in by_seed.items()}
                for name, by_seed in cells.items()
            },
            "reconstruction": self._reconstruction(),
            "classes": [self._classes(task, cells) for task in self.tasks if self._has_classes(task)],
        }
        write_json(self.path / "scales.json", content)
        text = report.markdown(self.config.name, self.tasks, content)
        save(report.figure(self.tasks, content), self.path / "scales.png")
        write_text(self.path / "scales.md", text)
        print(report.tables_of(self.tasks, content))
        return self.path / "scales.md"

    def _reconstruction(self) -> dict:
        """{"images": of a split, "explained": {view: R² of each level of the large model}}; kept on disk."""
        file = self.path / "reconstruction.json"
        origin = json.loads(json.dumps([self.count, *self.origins.values()]))
        if file.is_file() and (kept := read_json(file, ("origin", "explained")))["origin"] == origin:
            return {"images": self.count, "explained": kept["explained"]}
        modules = nn.ModuleList(self.models.values()).to(self.accelerator.device)

        def seen(pixels: Tensor) -> dict[str, list[Tensor]]:
            return {view.name: model(pixels) for view, model in zip(self.models, modules, strict=True)}

        settings = self.config.probe.batch_size, self.config.data.workers
        datasets = {split: build_pictures(self.config, split) for split in SPLITS}
        with torch.no_grad():
            moments, names = collect(seen, datasets, self.count, *settings, self.accelerator.device)
        target = names.index(self.large.name)
        rows = [
            linear_reconstruction(fitted, held)[target].tolist()
            for fitted, held in zip(moments["train"], moments["val"], strict=True)
        ]
        explained = {name: [row[place] for row in rows] for place, name in enumerate(names) if place != target}
        write_json(file, {"origin": origin, "explained": explained})
        return {"images": self.count, "explained": explained}

    def _has_classes(self, task: str) -> bool:
        return isinstance(self.tasks[task], Segmentation)

    def _classes(self, task: str, cells: dict) -> dict:
        """IoU of the classes of a segmentation, and how frequent and how ambiguous they are.

        Left out are the first, which is the background, and those that training or validation does not show.
        """
        channels, names = self.tasks[task].channels, self.tasks[task].classes
        images = {split: torch.zeros(channels, dtype=torch.int64) for split in SPLITS}
        for split in SPLITS:
            for index in range(len(self.samples.labels[task][split])):
                found = self.samples.labels[task][split][index][task].unique()
                images[split][found[found != IGNORE]] += 1
        shown = [c for c in range(1, channels) if images["train"][c] and images["val"][c]]
        iou: dict[str, dict[int, list[float]]] = {}
        for view, by_seed in cells.items():
            iou[view] = {}
            for seed, found in by_seed.items():
                values = _metric(found[task]["confusion"]).of_classes()
                iou[view][seed] = [values[c].item() for c in shown]
        ambiguity = None
        if self.ceiling:
            by_seed = cells[self.ceiling.name].values()
            confusion = torch.stack([torch.tensor(found[task]["confusion"]) for found in by_seed]).sum(0)
            ambiguity = [100 * (1 - confusion[c, c] / confusion[c].sum()).item() for c in shown]
        return {
            "task": task,
            "classes": [names[c] if names else str(c) for c in shown],
            "images": [images["train"][c].item() for c in shown],
            "ambiguity": ambiguity,
            "iou": iou,
        }


def _counting(classes: MeanIoU | None) -> Keep | None:
    """What counts the pixels of each class in the predictions that are evaluated."""

    def keep(task: str, prediction: Tensor, batch: Mapping) -> None:
        assert classes is not None
        classes.update(prediction, batch[task])

    return keep if classes is not None else None


def _metric(confusion: list) -> MeanIoU:
    metric = MeanIoU(len(confusion))
    metric.confusion += torch.tensor(confusion)
    return metric


def _without_place(spec: dict) -> dict:
    """Where weights lie is no matter: they are told apart by what they are."""
    return {key: value for key, value in spec.items() if key != "weights"}

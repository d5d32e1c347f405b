"""What a run shows while it trains: TensorBoard events, and PNG files beside them; and how events are read again.

``events/`` holds, each a run of TensorBoard's with steps of its own,

    STAGE/         STAGE/loss/..., STAGE/learning_rate and the like, STAGE/metrics/TASK/METRIC, pictures
    STAGE/SOURCE/  STAGE/GROUP/TASK/blockN: the weights of the routers, so that a chart has a line for each source

and at its top what belongs to no stage: run/config and run/results as text, and the layout of the custom scalars. Runs
of before had all of it at the top, with other tags and with steps that counted over both stages.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from sak import tables
from sak.config.schema import ORDER, STAGES
from sak.evaluation.evaluate import Evaluation
from sak.evaluation.figures import routing_heat_map
from sak.plotting import pixels, save, tiled
from sak.training.checkpoint import Progress
from sak.training.router_record import TRAINING, VALIDATION, weight_tag
from sak.training.run_directory import RunDirectory

FIRST, SECOND = STAGES
# Tags of before that did not begin with their stage.
OLD_GROUPS = ("metrics", VALIDATION, TRAINING)


class Tracker:
    """Writes on the main process alone, as said above; the steps of what it shows are the stage's own.

    Args:
        config: of the run.
        steps: {stage: how many the run has of it}.
        done: from where a resumed run goes on; TensorBoard drops what a killed one wrote beyond it.
    """

    def __init__(self, config: DictConfig, run: RunDirectory, steps: Mapping[str, int], done: Progress):
        self.run, self.done, self.histograms = run, done, config.tracking.histograms
        # Runs of before wrote all of it at the top, with steps that counted over both stages.
        over_both = done.step + sum(steps.get(stage, 0) for stage in ORDER[: ORDER.index(done.stage)])
        self.top = SummaryWriter(run.events, purge_step=over_both + 1)
        self.writers: dict[Path, SummaryWriter] = {}
        self.text("run/config", tables.verbatim(OmegaConf.to_yaml(config)))

    def layout(self, tasks: Iterable[str], levels: Sequence[int]) -> None:
        """Custom scalars of routers: a chart for each task and level, which has all sources."""
        self.top.add_custom_scalars(routers_layout(list(tasks), levels))

    def text(self, tag: str, markdown: str) -> None:
        """Of the run as a whole."""
        self.top.add_text(tag, markdown, 0)

    def scalars(self, values: Mapping[str, float], done: Progress) -> None:
        """{tag within the stage: value}"""
        for tag, value in values.items():
            self._writer(done.stage).add_scalar(f"{done.stage}/{tag}", value, done.step)

    def weights(self, group: str, weights: Mapping[str, float], done: Progress) -> None:
        """Of routers: {TASK/blockN/SOURCE: weight}."""
        for tag, weight in weights.items():
            task, block, source = tag.split("/", 2)
            self._writer(done.stage, source).add_scalar(f"{done.stage}/{group}/{task}/{block}", weight, done.step)

    def evaluation(self, evaluation: Evaluation, sources: Sequence[str], levels: Sequence[int], done: Progress) -> None:
        """Metrics; router weights as scalars, as a heat map for each level and, if the config asks, as histograms."""
        for task, values in evaluation.metrics.items():
            self.scalars({f"metrics/{task}/{name}": value for name, value in values.items()}, done)
        for task, per_level in evaluation.routing.items():
            for block, weights in zip(levels, per_level, strict=True):
                means = zip(sources, weights.mean(0).tolist(), strict=True)
                self.weights(VALIDATION, {weight_tag(task, block, source): mean for source, mean in means}, done)
                for source, column in zip(sources, weights.T, strict=True) if self.histograms else ():
                    tag = f"{done.stage}/{VALIDATION}/{task}/block{block}"
                    self._writer(done.stage, source).add_histogram(tag, column, done.step)
        if evaluation.routing:
            maps = {
                f"block{block}": routing_heat_map(
                    {t: [w[level]] for t, w in evaluation.routing.items()}, sources, [block]
                )
                for level, block in enumerate(levels)
            }
            self.figure("mean_weights", maps, self.run.routing, done)

    def figure(self, tag: str, figures: Mapping[str, Figure], directory: Path, done: Progress) -> None:
        """Each under its name into the events, and all of them as ``directory/STAGE-STEP.png``."""
        drawn = {name: pixels(figure) for name, figure in figures.items()}
        for name, picture in drawn.items():
            self._writer(done.stage).add_image(f"{done.stage}/{tag}/{name}", picture, done.step, dataformats="HWC")
        save(tiled(list(drawn.values())), directory / f"{done.stage}-{done.step:07d}.png")

    def close(self) -> None:
        for writer in (self.top, *self.writers.values()):
            writer.close()

    def _writer(self, stage: str, source: str = "") -> SummaryWriter:
        """Of a stage, or of a source in it; what a killed run wrote beyond its checkpoint is dropped."""
        folder = self.run.events / stage / source
        if folder not in self.writers:
            done = self.done.step if stage == self.done.stage else 0
            self.writers[folder] = SummaryWriter(folder, purge_step=done + 1)
        return self.writers[folder]


class Scalar(NamedTuple):
    """One value: its step in the stage, and when it was written, in seconds since 1970."""

    step: int
    value: float
    time: float


Scalars = dict[str, list[Scalar]]  # {tag: its values in the order of their steps}


def read_scalars(events: Path) -> Scalars:
    """All of a run; the weights of routers under STAGE/GROUP/TASK/blockN/SOURCE.

    Args:
        events: the folder of a run's events, of today or of before; one that is not there holds none.
    """
    found: dict[str, dict[int, Scalar]] = {}

    def add(tag: str, scalars: Sequence[Scalar]) -> None:
        found.setdefault(tag, {}).update({scalar.step: scalar for scalar in scalars})

    top = _read(events)
    before = max((scalar.step for scalar in top.get(f"{FIRST}/learning_rate", ())), default=0)
    for tag, scalars in top.items():
        tag = f"{SECOND}/{tag}" if tag.startswith(tuple(f"{group}/" for group in OLD_GROUPS)) else tag
        first = before if tag.startswith(f"{SECOND}/") else 0
        add(tag, [scalar._replace(step=scalar.step - first) for scalar in scalars])
    for stage in ORDER:
        for folder in sorted({file.parent for file in (events / stage).rglob("*tfevents*")}):
            source = "" if folder == events / stage else f"/{folder.relative_to(events / stage)}"
            for tag, scalars in _read(folder).items():
                add(f"{tag}{source}", scalars)
    return {tag: [scalars[step] for step in sorted(scalars)] for tag, scalars in found.items()}


def _read(folder: Path) -> Scalars:
    if not folder.is_dir():
        return {}
    # All scalars are kept; of images and histograms, which are large, none is looked at.
    recorded = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 1, "histograms": 1}).Reload()
    return {
        tag: [Scalar(event.step, event.value, event.wall_time) for event in recorded.Scalars(tag)]
        for tag in recorded.Tags()["scalars"]
    }


def routers_layout(tasks: Sequence[str], levels: Sequence[int]) -> dict[str, dict[str, list]]:
    """Of TensorBoard's custom scalars: a chart for each task and level, with all sources, a section for each task."""
    groups = f"({VALIDATION}|{TRAINING})"
    return {
        f"routers of {task}": {
            f"{task}, block {block}": ["Multiline", [f"{SECOND}/{groups}/{re.escape(task)}/block{block}$"]]
            for block in levels
        }
        for task in tasks
    }

"""What a run shows while it trains: TensorBoard events, and PNG files beside them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from sak.config.schema import STAGES
from sak.evaluation.evaluate import Evaluation
from sak.evaluation.figures import routing_heat_map
from sak.plotting import pixels, save
from sak.training.checkpoint import Progress
from sak.training.router_record import VALIDATION, weight_tag
from sak.training.run_directory import RunDirectory


class Tracker:
    """Writes on the main process alone; the steps of what it shows count over both stages.

    Args:
        steps: {stage: how many the run has of it}.
        done: from where a resumed run goes on; TensorBoard drops what a killed one wrote beyond it.
    """

    def __init__(self, run: RunDirectory, steps: Mapping[str, int], done: Progress):
        self.run, self.steps = run, steps
        self.writer = SummaryWriter(run.events, purge_step=self._step(done) + 1)

    def scalars(self, group: str, values: Mapping[str, float], done: Progress) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"{group}/{name}", value, self._step(done))

    def evaluation(self, evaluation: Evaluation, sources: Sequence[str], levels: Sequence[int], done: Progress) -> None:
        """Metrics; router weights as scalars per task, level and source, as histograms, and as one heat map."""
        step = self._step(done)
        for task, values in evaluation.metrics.items():
            self.scalars(f"metrics/{task}", values, done)
        for task, per_level in evaluation.routing.items():
            for block, weights in zip(levels, per_level, strict=True):
                for source, column in zip(sources, weights.T, strict=True):
                    tag = weight_tag(task, block, source)
                    self.writer.add_scalar(f"{VALIDATION}/{tag}", column.mean(), step)
                    self.writer.add_histogram(f"routing_histogram/{tag}", column, step)
        if evaluation.routing:
            figure = routing_heat_map(evaluation.routing, sources, levels)
            self.figure("routing/mean_weights", figure, self.run.routing, done)

    def figure(self, tag: str, figure: Figure, directory: Path, done: Progress) -> None:
        """Into the events, and as ``directory/step-<step>.png``."""
        step = self._step(done)
        self.writer.add_image(tag, pixels(figure), step, dataformats="HWC")
        save(figure, directory / f"step-{step:07d}.png")

    def close(self) -> None:
        self.writer.close()

    def _step(self, done: Progress) -> int:
        return done.step + sum(self.steps[stage] for stage in STAGES[: STAGES.index(done.stage)])

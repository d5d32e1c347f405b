"""What a run leaves at its end: the student as a bundle, tables, and ``metrics.json``, which says that all is done."""

from collections.abc import Sequence

import torch
from omegaconf import DictConfig

from sak.bundles.build import build_pictures
from sak.bundles.bundle import save_bundle
from sak.bundles.change import describe_start
from sak.config.derived import change, left_out
from sak.data.faulty_images import Skips, build_skips
from sak.deploy.card import write_card
from sak.evaluation import metrics_table, sources
from sak.files import write_json, write_text
from sak.metrics import Metrics
from sak.student import Student
from sak.tasks import Task
from sak.training.best import best
from sak.training.run_directory import RunDirectory


def write_evaluated(
    config: DictConfig,
    run: RunDirectory,
    student: Student,
    tasks: dict[str, Task],
    metrics: Metrics,
    constants: Metrics,
    skips: Sequence[Skips | None],
) -> None:
    """Of a student that has heads; and print the table.

    Args:
        constants: the metrics of the best constant predictions.
        skips: of all parts of the data.
    """
    # A changed student without a second stage may have one in another run.
    save_bundle(student, run.student, keep_aligners=left_out(config.stages.multitask))
    newest = {"predictions": run.panels, "router weights": run.routing}
    pictures = {title: max(folder.glob("*.png"), default=folder / "none") for title, folder in newest.items()}
    write_card(run.student, config, student, tasks, metrics, constants, pictures)
    write_json(run.constants, constants)
    notes = _notes(config, run, skips)
    write_text(run.results, metrics_table.markdown(config.name, tasks, metrics, constants, notes))
    write_json(run.metrics, metrics)
    print(metrics_table.console(tasks, metrics, constants))


def write_distilled(
    config: DictConfig,
    run: RunDirectory,
    student: Student,
    steps: int,
    skips: Sequence[Skips | None],
    learned: sources.Learned | None,
    device: torch.device,
) -> None:
    """Of a run of the first stage alone: a student to go on from, and no metrics, which it has none.

    Where there are no labels at all, what it has learned is shown by its features.

    Args:
        learned: what its paths have learned; None: nothing, as a teacher was only taken out.
    """
    save_bundle(student, run.student, keep_aligners=True)
    notes = _notes(config, run, skips)
    if learned and not config.data.tasks:
        pictures = build_pictures(config, "val")
        skipped = build_skips(config.data, run.skipped, "report", len(pictures), replaced=False)
        how = (config.data.workers, device, skipped)
        notes.append(sources.report(student, learned, pictures, run.path, *how))
    write_text(run.results, metrics_table.of_distillation(config.name, student, steps, run.path, notes))
    write_json(run.metrics, {})


def _notes(config: DictConfig, run: RunDirectory, skips: Sequence[Skips | None]) -> list[str]:
    """What else there is to say of the results."""
    notes, metric = [], config.stages.multitask.keep_best
    if change(config):
        notes.append(f"The student started with {describe_start(config)}.")
    if metric and (found := best(run.student_best, metric)):
        value, step = found["value"], found["step"]
        notes.append(f"`student_best/` is the student after step {step}, the best in {metric}: {value:.4g}.")
    return notes + [sentence for each in skips if each and (sentence := each.sentence())]

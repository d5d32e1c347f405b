"""Evaluate a trained student on a benchmark and write down the results."""

import os
from pathlib import Path
from typing import Literal

from sak import data, tables, tasks
from sak.bundles.build import build_tasks
from sak.data.faulty_images import build_skips
from sak.errors import UserError
from sak.evaluation import metrics_table
from sak.evaluation.baselines import Baseline
from sak.evaluation.distributed import build_accelerator
from sak.evaluation.evaluate import evaluate
from sak.evaluation.prediction_files import MapWriter
from sak.evaluation.subject import Subject, check_output
from sak.files import write_json, write_text
from sak.metrics import Metrics
from sak.metrics.delta_m import delta_m, gains
from sak.tasks import Task
from sak.tasks.edge import Edge


def run_benchmark(
    subject: Subject,
    output: Path,
    split: str = "val",
    baseline: Baseline | None = None,
    boundaries: Literal["sak", "invpt"] = "sak",
    save_maps: bool = False,
    overwrite: bool = False,
) -> Metrics:
    """Evaluate, print a table, write ``metrics.json`` and ``results.md`` to `output`, the maps to ``output/<task>``.

    Under ``torchrun`` or ``accelerate launch`` the processes share the work; the result is the same to the bit, on CPUs
    if each has as many threads.

    Args:
        boundaries: the protocol that ``edge`` is evaluated under.
        overwrite: replace the results that `output` holds already.

    Raises:
        UserError: the data cannot be read, or the baseline be compared with, or the output be written.
        FloatingPointError: a prediction is not finite.
    """
    chosen = build_tasks(subject.data)
    for name, task in chosen.items():
        if isinstance(task, Edge):
            chosen[name] = type(task)(task.description, boundaries)
    if baseline:
        baseline.check(chosen, boundaries, data.kind_of(subject.data).DESCRIPTION)
    check_output(output, ["results.md", *(chosen if save_maps else ())], "metrics.json")
    if (output / "metrics.json").exists() and not overwrite:
        raise UserError(f"{output} holds results already: choose another --output, or replace them with --overwrite")
    accelerator = build_accelerator(subject.precision)
    maps = MapWriter(output, chosen) if save_maps else None
    with accelerator.main_process_first():
        if not Path(subject.data.root).exists():
            data.prepare(subject.data)
        images = data.build(subject.data, split)
        skips = build_skips(subject.data, output / "skipped.txt", split, len(images), replaced=False)
        if accelerator.is_main_process:  # nothing is made before the data are known to be there
            _open_output(output)
            if skips:
                skips.forget()
            if maps:
                maps.start()
    metrics = evaluate(
        subject.student.to(accelerator.device),
        chosen,
        images,
        subject.batch_size,
        subject.data.workers,
        accelerator,
        keep=maps,
        timeout=subject.data.timeout,
        skips=skips,
    ).metrics
    accelerator.wait_for_everyone()  # all maps are written
    if accelerator.is_main_process:
        if maps:
            maps.finish()
        what = (
            f"{subject.name}: {len(images)} {split} images of {subject.data.dataset}, "
            f"{subject.data.image_size[0]}x{subject.data.image_size[1]}"
        )
        table = _table(chosen, metrics, baseline)
        notes = _notes(chosen, metrics, baseline, boundaries)
        if skips and (sentence := skips.sentence()):
            notes.append(sentence)
        text = [f"# Results of {subject.name}", "", what + ".", "", tables.markdown(table), "", *notes]
        write_text(output / "results.md", "\n".join(text) + "\n")
        write_json(output / "metrics.json", metrics)
        print("\n".join([what, "", tables.console(table), "", *notes, f"written to {output}"]))
    accelerator.end_training()
    return metrics


def _open_output(output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    if not os.access(output, os.W_OK):
        raise UserError(f"{output} is not writable: choose another --output")


def _table(chosen: dict[str, Task], metrics: Metrics, baseline: Baseline | None) -> tables.Rows:
    if baseline is None:
        return metrics_table.rows(chosen, {"student": metrics})
    relative = gains(metrics, baseline.metrics, tasks.headlines(chosen))
    return metrics_table.rows(chosen, {"student": metrics, "baseline": baseline.metrics}, relative)


def _notes(chosen: dict[str, Task], metrics: Metrics, baseline: Baseline | None, boundaries: str) -> list[str]:
    """What the figures are relative to."""
    notes = []
    if "edge" in chosen:
        notes.append(
            f"edge: protocol {boundaries}, exact matching (ods_f is 0.03 to 0.12 points higher than by the reference "
            "matcher)"
        )
    if baseline:
        gain = delta_m(metrics, baseline.metrics, tasks.headlines(chosen))
        notes += [f"Δm: {gain:+.2f} % against {baseline.name} ({baseline.source})"]
    else:
        notes.append("Δm: none without a single-task baseline to measure it against (--baseline)")
    return notes

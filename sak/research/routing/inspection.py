"""Lay the routers of a trained student open: numbers, warnings, pictures, and what each source is worth.

Legend: N images, S sources, h,w token grid.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import Subset
from torch.utils.tensorboard import SummaryWriter

from sak import data, tables
from sak.bundles.build import build_tasks
from sak.data import loading
from sak.data.archive import Archive
from sak.errors import UserError
from sak.evaluation.distributed import build_accelerator
from sak.evaluation.evaluate import evaluate
from sak.evaluation.masking import MaskedStudents
from sak.evaluation.subject import Subject, check_output
from sak.files import replacing, write_json
from sak.metrics import Metrics
from sak.plotting import pixels, save
from sak.research.routing import figures
from sak.research.routing.findings import Inspection, as_json, console
from sak.research.routing.history import History, router_history
from sak.research.routing.images import GivenImages, main_classes
from sak.research.routing.statistics import (
    class_information,
    information_by_chance,
    router_statistics,
    warnings,
)
from sak.research.routing.tokens import TokenRecord
from sak.tasks import Task
from sak.training.router_record import TRAINING, VALIDATION
from sak.training.tracking import read_scalars

OVERLAYS = 4  # images on which weights per token are shown

Inspected = GivenImages | Archive | Subset


def inspect(
    subject: Subject,
    output: Path,
    images: Sequence[str] = (),
    limit: int | None = None,
    knock_out: bool = True,
) -> Inspection:
    """Inspect the routers of a student and write what was found to `output`.

    inspection.json   all numbers
    weights.npz       the weights of every image: TASK.blockN (N, S), with "names" and "sources"
    *.png             weights, information, history, knock_out, leaning (a contact sheet), tokens-TASK (overlays)
    knock_out.json    metrics without each source; they are not measured again if nothing has changed
    events/           the same for TensorBoard

    Args:
        images: files or folders; none: the validation set, whose labels tell what each source is worth.
        limit: of the validation images, evenly spread; None: all.
        knock_out: whether to evaluate the student without each source.

    Raises:
        UserError: the student has no learned routers, or images or data cannot be read.
    """
    student = subject.student
    if not len(student.routers):
        why = "has the stem alone to read" if len(student.sources) == 1 else "mixes its sources with fixed weights"
        raise UserError(f"{subject.name} has no routers to inspect: it {why}; give a student with learned routers")
    check_output(output, ["events"], "inspection.json")
    accelerator = build_accelerator(subject.precision)
    if accelerator.num_processes > 1:
        raise UserError("routers are inspected in one process; start it without torchrun or accelerate launch")
    student.to(accelerator.device).eval()
    if images:
        dataset: Inspected = GivenImages(images, subject.data.image_size)
        chosen: dict[str, Task] = {}
        title = f"{len(dataset)} given images"
    else:
        dataset, chosen = _validation(subject, limit)
        title = f"{len(dataset)} val images of {subject.data.dataset}"
    inspection = _measure(subject, title, dataset, chosen, output, accelerator, knock_out and bool(chosen))
    write_json(output / "inspection.json", as_json(inspection, subject))
    _write_weights(output / "weights.npz", inspection, subject)
    _draw(inspection, subject, dataset, chosen, output, accelerator)
    print("\n".join(console(inspection, student.sources, chosen)))
    return inspection


# --- measuring --------------------------------------------------------------------------------------------------------


def _validation(subject: Subject, limit: int | None) -> tuple[Archive | Subset, dict[str, Task]]:
    if not Path(subject.data.root).exists():
        data.prepare(subject.data)
    dataset = data.build(subject.data, "val")
    if limit is not None and limit < len(dataset):
        dataset = Subset(dataset, loading.evenly_spread(len(dataset), limit))
    return dataset, build_tasks(subject.data)


def _measure(
    subject: Subject,
    title: str,
    dataset: Inspected,
    chosen: Mapping[str, Task],
    output: Path,
    accelerator: Accelerator,
    knock_out: bool,
) -> Inspection:
    student, classes = subject.student, []
    background = chosen["semseg"].description.background if "semseg" in chosen else None

    def keep(task: str, _: Tensor, batch: Mapping) -> None:
        if task == "semseg":
            classes.append(main_classes(batch["semseg"].cpu(), background))

    record = TokenRecord(student)
    evaluation = evaluate(record, chosen, dataset, subject.batch_size, subject.data.workers, accelerator, keep=keep)
    weights, blocks = evaluation.routing, student.levels
    routers = {
        task: {block: router_statistics(level) for block, level in zip(blocks, levels, strict=True)}
        for task, levels in weights.items()
    }
    information: dict[str, dict[int, dict[str, float]]] = {}
    for task, levels in weights.items():
        information[task] = {}
        for number, (block, level) in enumerate(zip(blocks, levels, strict=True)):
            bits = {"image": routers[task][block].image_information}
            if classes:
                bits["class"] = class_information(level, torch.cat(classes))
                bits["class_by_chance"] = information_by_chance(level, torch.cat(classes))
            if (of_tokens := record.information(task, number)) is not None:
                bits["token"] = of_tokens
            information[task][block] = bits
    without: dict[str, Metrics] = {}
    if knock_out:
        masked = MaskedStudents(subject, chosen, dataset, accelerator, output / "knock_out.json")
        without = dict(zip(student.sources, masked.metrics([[source] for source in student.sources]), strict=True))

    scalars = read_scalars(Path(subject.name) / "events")

    def history(group: str) -> History:
        return router_history(scalars, list(routers), student.sources, blocks, group)

    return Inspection(
        title=title,
        names=_names(dataset),
        weights=weights,
        routers=routers,
        information=information,
        warnings=warnings(routers, student.sources),
        history=history(VALIDATION),
        history_training=history(TRAINING),
        tasks=chosen,
        metrics=evaluation.metrics,
        without=without,
    )


def _names(dataset: Inspected) -> list[str]:
    if isinstance(dataset, Subset):
        return [cast(Archive, dataset.dataset).names[index] for index in dataset.indices]
    return list(dataset.names)


def _write_weights(path: Path, inspection: Inspection, subject: Subject) -> None:
    arrays: dict[str, Any] = {
        f"{task}.block{block}": weights.numpy()
        for task, levels in inspection.weights.items()
        for block, weights in zip(subject.student.levels, levels, strict=True)
    }
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez(file, names=np.array(inspection.names), sources=np.array(subject.student.sources), **arrays)


# --- pictures ---------------------------------------------------------------------------------------------------------


def _draw(
    inspection: Inspection,
    subject: Subject,
    dataset: Inspected,
    chosen: Mapping[str, Task],
    output: Path,
    accelerator: Accelerator,
) -> None:
    sources, levels, names = subject.student.sources, subject.student.levels, list(inspection.routers)
    drawn: dict[str, Figure] = {
        "weights": figures.weights_figure(inspection.routers, sources),
        "information": _information(inspection, sources, names, levels),
        "leaning": _leaning(inspection, sources, dataset),
    }
    if inspection.history:
        drawn["history"] = figures.history_figure(inspection.history, inspection.history_training, sources)
    if inspection.without:
        changes = inspection.changes
        drawn["knock_out"] = figures.knock_out_figure(
            np.array([[inspection.overall(task)[s] for s in range(len(sources))] for task in names]),
            np.array([[changes[source][task] for source in sources] for task in names]),
            np.array([[inspection.relative_change(source, task) for source in sources] for task in names]),
            {task: chosen[task] for task in names},
            sources,
        )
    drawn |= _overlays(subject, dataset, accelerator)
    events = output / "events"
    shutil.rmtree(events, ignore_errors=True)  # of an earlier inspection
    with SummaryWriter(events) as writer:
        for name, figure in drawn.items():
            picture = pixels(figure)  # drawing is slow: once for both
            save(picture, output / f"{name}.png")
            writer.add_image(f"inspection/{name}", picture, dataformats="HWC")
        writer.add_text("inspection/findings", tables.verbatim("\n".join(console(inspection, sources, chosen))))
    for stale in {"history", "knock_out"} - drawn.keys():  # of an earlier inspection, beside which it would not belong
        (output / f"{stale}.png").unlink(missing_ok=True)


def _information(inspection: Inspection, sources: Sequence[str], names: Sequence[str], levels: Sequence[int]) -> Figure:
    def values(of: Callable[[str, int], float]) -> np.ndarray:
        return np.array([[of(task, block) for block in levels] for task in names])

    def bits(kind: str) -> np.ndarray:
        return values(lambda task, block: inspection.information[task][block][kind])

    titles = {
        "image": "I(image; source)",
        "token": "I(token; source)",
        "class": "I(class; source)",
        "class_by_chance": "I(class; source) by chance",
    }
    known = inspection.information[names[0]][levels[0]]
    return figures.information_figure(
        values(lambda task, block: inspection.routers[task][block].entropy),
        {title: bits(kind) for kind, title in titles.items() if kind in known},
        float(np.log2(len(sources))),
        names,
        levels,
    )


def _leaning(inspection: Inspection, sources: Sequence[str], dataset: Inspected) -> Figure:
    weights = inspection.mean_weights
    chosen = {
        source: [
            (dataset[index]["image"], f"{inspection.names[index]}\n{weights[index, number]:.3f}")
            for index in inspection.leaning(number)
        ]
        for number, source in enumerate(sources)
    }
    spread = weights.std(0, correction=0)
    titles = {
        source: f"{source}\n{weights[:, number].mean():.3f}\n±{spread[number]:.3f}"
        for number, source in enumerate(sources)
    }
    heading = (
        f"the images that lean most to each source ({inspection.title})\n"
        "weights over tasks and levels: at the left their mean ± spread over all images, below each image its own"
    )
    return figures.leaning_figure(chosen, titles, heading)


@torch.no_grad()
def _overlays(subject: Subject, dataset: Inspected, accelerator: Accelerator) -> dict[str, Figure]:
    """{"tokens-TASK": a figure} of per-token routers; none of others."""
    count = min(OVERLAYS, len(dataset))
    images = torch.stack([dataset[number * len(dataset) // count]["image"] for number in range(count)])
    with accelerator.autocast():
        routing = subject.student(images.to(accelerator.device)).token_routing
    return {
        f"tokens-{task}": figures.token_figure(
            images,
            [level.float().cpu() for level in levels],
            subject.student.sources,
            subject.student.levels,
            f"{task}: the weights of every token",
        )
        for task, levels in routing.items()
    }

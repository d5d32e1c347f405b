"""Whole training steps of the paper's ViT-B recipe, teachers and optimizer included, against the plain reference.

`python -m benchmarks.steps FORM COUNT` in `tools` measures the memory of one form's step with so many images.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from benchmarks.apart import alone, fresh, in_turn
from benchmarks.paper import (
    IN_TURN,
    RATIO_HEADER,
    SIZE,
    TASKS,
    TEACHERS,
    batch,
    plain_teachers,
    ratio_rows,
    reference,
    students,
)
from benchmarks.paper import settings as paper_settings
from benchmarks.teachers import resident
from benchmarks.timing import Ratio, alternate, table
from sak.bundles.build import build_committee, build_tasks
from sak.evaluation.distributed import keep_freed
from sak.training import objectives
from sak.training.optimizer import adamw
from teachers import Committee

SIZES = {"distill": 384, "multitask": SIZE}
PRECISIONS = ("fp32", "bf16")
SETTING = "Three teachers with random weights (SAM at 1024 x 1024), batches of one image, float32, AdamW"
ROUNDS = 2
MEMORY = (("ours", 1), ("ours", 2), ("recomputed", 2), ("plain", 1))
Step = Callable[[], dict[str, float]]


def run() -> str:
    difference = max(alone(lambda stage=stage: first_losses(stage)) for stage in SIZES)
    stages = table(RATIO_HEADER, stage_rows(stage_ratios(ROUNDS)))
    members = []
    for name in TEACHERS:
        ours, plain = ((lambda make=make, name=name: make(name)) for make in (our_teacher, plain_teacher))
        members += ratio_rows(name, in_turn(ours, plain, ROUNDS))
    adam = alone(optimizer_times)
    memory = [
        (f"{form}, batch {count}", f"{fresh('benchmarks.steps', form, str(count)):.1f}") for form, count in MEMORY
    ]
    return (
        f"{SETTING}; {IN_TURN.format(rounds=ROUNDS)}. Losses of the first step differ by at most {difference:.0e} of "
        f"their value.\n\n{stages}\n\nThe teachers alone, one image of {SIZE} x {SIZE}:\n\n"
        f"{table(RATIO_HEADER, members)}\n\nAdamW alone: {adam.first:.2f} s fused, {adam.second:.2f} s in torch's "
        f"default form, {adam.median:.1f} times as long.\n\nA process at its largest in a multi-task step with "
        f"teachers, GiB, everything included:\n\n{table(('step', 'peak'), memory)}"
    )


def quick() -> tuple[str, dict[str, dict[str, float]]]:
    """The steps alone, in one round: a table, and {stage: {our precision: plain / ours}}."""
    ratios = stage_ratios(1)
    shown = {
        stage: {precision: round(one.median, 3) for precision, one in zip(PRECISIONS, both, strict=True)}
        for stage, both in ratios.items()
    }
    how = "processor seconds of one round, after one that does not count"
    return f"{SETTING}; {how}.\n\n{table(RATIO_HEADER, stage_rows(ratios))}", shown


def stage_ratios(rounds: int) -> dict[str, list[Ratio]]:
    """{stage: of ours in each of `PRECISIONS`}."""
    found = {}
    for stage in SIZES:
        ours, plain = ((lambda make=make, stage=stage: make(stage)) for make in (our_step, plain_step))
        found[stage] = in_turn(ours, plain, rounds, PRECISIONS)
    return found


def stage_rows(ratios: Mapping[str, Sequence[Ratio]]) -> list[tuple[str, ...]]:
    return [row for stage, size in SIZES.items() for row in ratio_rows(f"{stage}, {size} x {size}", ratios[stage])]


def first_losses(stage: str) -> float:
    """By what part of their value the losses of both forms differ, which have to be the same."""
    first, expected = our_step(stage)(), plain_step(stage)()
    difference = max(abs(first[name] - value) / abs(value) for name, value in expected.items())
    if difference > 1e-3:
        raise AssertionError(f"{stage}: the losses of the two forms differ by {difference}")
    return difference


def with_states(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """As after a first step, but that the weights stay: rates and gradients are 0."""
    for group in optimizer.param_groups:
        rate, group["lr"] = group["lr"], 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        optimizer.step()
        group["lr"] = rate
    optimizer.zero_grad()
    return optimizer


def our_teacher(name: str) -> Callable[[], object]:
    return partial(committee()[name], batch(SIZE)["image"])


def plain_teacher(name: str) -> Callable[[], object]:
    return partial(plain_teachers(committee())[name], batch(SIZE)["image"])


def committee() -> Committee:
    torch.manual_seed(0)
    return build_committee(paper_settings())


def optimizer_times() -> Ratio:
    student, _ = students()
    for parameter in student.parameters():
        parameter.grad = torch.randn_like(parameter)
    settings = paper_settings().stages.multitask.optim
    default = torch.optim.AdamW(student.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    return alternate(adamw(student, settings).step, default.step, 3, time.process_time)


def peak(form: str, count: str) -> float:
    if form == "plain":
        step = plain_step("multitask", int(count))
    else:
        keep_freed()
        step = our_step("multitask", int(count), recomputed=form == "recomputed")
    step()
    return resident("VmHWM") / 1024


def our_step(stage: str, count: int = 1, recomputed: bool = False) -> Step:
    features, settings = objectives.of_images(committee()), paper_settings().stages[stage]
    student = students(SIZES[stage], TASKS if stage == "multitask" else {})[0]
    student.activation_checkpointing = recomputed
    objectives.choose_trained_weights(student, stage, distils=True)
    if stage == "distill":
        objective = objectives.distillation(features, settings.loss)
    else:
        tasks = build_tasks(paper_settings().data)
        objective = objectives.multitask(features, tasks, settings.loss, settings.alpha)
    optimizer = with_states(adamw(student, settings.optim))
    content = batch(SIZES[stage], count)

    def step() -> dict[str, float]:
        torch.manual_seed(1)  # of the gates' noise
        total, terms = objective(student, content)
        total.backward()
        if settings.optim.clip is not None:
            nn.utils.clip_grad_norm_(student.parameters(), settings.optim.clip)
        optimizer.step()
        optimizer.zero_grad()  # the other form needs the memory
        return {name: term.item() for name, term in terms.items()}

    return step


def plain_step(stage: str, count: int = 1) -> Step:
    members, settings = plain_teachers(committee()), paper_settings().stages[stage].optim
    student = students(SIZES[stage], TASKS if stage == "multitask" else {})[1]
    optimizer = with_states(torch.optim.AdamW(student.parameters(), lr=settings.lr, weight_decay=settings.weight_decay))
    content, training_step = batch(SIZES[stage], count), reference("step").training_step

    def step() -> dict[str, float]:
        torch.manual_seed(1)
        losses = training_step(student, members, optimizer, content, settings.clip)
        optimizer.zero_grad()
        return losses

    return step


if __name__ == "__main__":
    print(json.dumps(peak(*sys.argv[1:])))

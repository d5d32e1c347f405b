"""Whole training steps of the paper's ViT-B recipe, teachers and optimizer included, against the plain reference.

Every figure comes from a process of its own, so that memory is free again: `python -m benchmarks.steps WHAT ...` in
`tools`, WHAT being a function of this file.
"""

import json
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.paper import (
    RATIO_HEADER,
    SIZE,
    TASKS,
    TEACHERS,
    apart,
    batch,
    in_bf16,
    in_turn,
    plain_teachers,
    ratio_row,
    reference,
    students,
)
from benchmarks.paper import settings as paper_settings
from benchmarks.teachers import resident
from benchmarks.timing import Ratio, alternate, table
from sak.bundles.build import build_committee, build_tasks
from sak.training import objectives
from sak.training.optimizer import adamw
from teachers import Committee

SIZES = {"distill": 384, "multitask": SIZE}
ROUNDS = 1
MEMORY = (("ours", 1), ("ours", 2), ("recomputed", 2), ("plain", 1))
Step = Callable[[], dict[str, float]]


def run() -> str:
    steps = {stage: apart("benchmarks.steps", "stage_times", stage) for stage in SIZES}
    rows = [
        ratio_row(f"{stage}, {SIZES[stage]} x {SIZES[stage]}{of}", Ratio(*figures[times]), 1)
        for stage, figures in steps.items()
        for times, of in (("times", ""), ("times in bf16", ", ours in bf16"))
    ]
    teachers = {name: apart("benchmarks.steps", "teacher_times", name) for name in TEACHERS}
    members = [
        ratio_row(f"{name}{of}", Ratio(*times), 1)
        for name, both in teachers.items()
        for times, of in zip(both, ("", ", ours in bf16"), strict=True)
    ]
    adam = Ratio(*apart("benchmarks.steps", "optimizer_times"))
    memory = [
        (f"{form}, batch {count}", f"{apart('benchmarks.steps', 'peak', form, str(count)):.1f}")
        for form, count in MEMORY
    ]
    worst = max(figures["difference"] for figures in steps.values())
    return (
        "Three teachers with random weights (SAM at 1024 x 1024), batches of one image, float32, AdamW; processor "
        f"seconds, both in turn. Losses of the first step differ by at most {worst:.0e} of their value.\n\n"
        f"{table(RATIO_HEADER, rows)}\n\nThe teachers alone, one image of {SIZE} x {SIZE}:\n\n"
        f"{table(RATIO_HEADER, members)}\n\nAdamW alone: {adam.first:.2f} s fused, {adam.second:.2f} s in torch's "
        f"default form, {adam.median:.1f} times as long.\n\nA process at its largest in a multi-task step with "
        f"teachers, GiB, everything included:\n\n{table(('step', 'peak'), memory)}"
    )


def stage_times(stage: str) -> dict:
    torch.manual_seed(0)
    committee = build_committee(paper_settings())
    pair = students(SIZES[stage], TASKS if stage == "multitask" else {})
    ours, plain = our_step(stage, pair[0], committee, 1), plain_step(stage, pair[1], committee, 1)
    first, expected = ours(), plain()
    difference = max(abs(first[name] - value) / abs(value) for name, value in expected.items())
    if difference > 1e-3:
        raise AssertionError(f"{stage}: the losses of the two forms differ by {difference}")
    return {
        "difference": difference,
        "times": in_turn(ours, plain, ROUNDS, warm_up=0),
        "times in bf16": in_turn(in_bf16(ours), plain, ROUNDS, warm_up=0),
    }


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


def teacher_times(name: str) -> list[Ratio]:
    """In float32, and ours in bf16."""
    committee, images = build_committee(paper_settings()), batch(SIZE)["image"]
    plain, ours = plain_teachers(committee)[name], lambda: committee[name](images)
    return [in_turn(way, lambda: plain(images), ROUNDS) for way in (ours, in_bf16(ours))]


def optimizer_times() -> Ratio:
    student, _ = students()
    for parameter in student.parameters():
        parameter.grad = torch.randn_like(parameter)
    settings = paper_settings().stages.multitask.optim
    default = torch.optim.AdamW(student.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    return alternate(adamw(student, settings).step, default.step, 3, time.process_time)


def peak(form: str, count: str) -> float:
    committee = build_committee(paper_settings())
    student = students()[form == "plain"]
    if form == "plain":
        step = plain_step("multitask", student, committee, int(count))
    else:
        student.activation_checkpointing = form == "recomputed"
        step = our_step("multitask", student, committee, int(count))
    step()
    return resident("VmHWM") / 1024


def our_step(stage: str, student: nn.Module, committee: Committee, count: int) -> Step:
    settings = paper_settings().stages[stage]
    features = objectives.of_images(committee)
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


def plain_step(stage: str, student: nn.Module, committee: Committee, count: int) -> Step:
    settings, members = paper_settings().stages[stage].optim, plain_teachers(committee)
    optimizer = with_states(torch.optim.AdamW(student.parameters(), lr=settings.lr, weight_decay=settings.weight_decay))
    content, training_step = batch(SIZES[stage], count), reference("step").training_step

    def step() -> dict[str, float]:
        torch.manual_seed(1)
        losses = training_step(student, members, optimizer, content, settings.clip)
        optimizer.zero_grad()
        return losses

    return step


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))

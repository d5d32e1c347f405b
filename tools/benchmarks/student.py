"""The student at the paper's ViT-B size against the plain reference: time, memory, and where the time goes.

`python -m benchmarks.student ours|plain|recomputed` in `tools` measures one form's memory in a process of its own.
"""

import json
import sys
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.apart import alone, fresh, in_turn
from benchmarks.paper import IN_TURN, RATIO_HEADER, SIZE, batch, ratio_rows, students
from benchmarks.teachers import peak_beyond, resident
from benchmarks.timing import table
from sak.evaluation.distributed import keep_freed
from sak.preflight.plan import step_memory

ROUNDS = 2
KINDS = {  # of operators, by parts of their names; the first that fits
    "convolutions": ("conv",),
    "attention": ("scaled_dot_product", "flash_attention"),
    "matrix products": ("mm", "linear"),
    "interpolation": ("upsample",),
    "norms": ("norm",),
    "GELU": ("gelu",),
    "copies": ("copy_", "cat", "clone", "fill_", "zero_"),
}
MEMORY = {"ours": "ours", "recomputed": "ours, `activation_checkpointing: true`", "plain": "plain"}


def run() -> str:
    agreement, shares = alone(compared)
    images = batch(SIZE)["image"]
    times = []
    for title, work in (("forward", predict), ("forward and backward", learn)):
        ours, plain = ((lambda place=place, work=work: partial(work, students()[place], images)) for place in range(2))
        times += ratio_rows(title, in_turn(ours, plain, ROUNDS))
    memory = {form: fresh("benchmarks.student", form) for form in MEMORY}
    rows = []
    for form, title in MEMORY.items():
        figures = (f"{memory[form][key]:.0f}" for key in ("weights", "counted", "resident"))
        rows.append((title, *figures, f"{memory[form]['counted'] / memory['ours']['counted']:.2f}"))
    header = ("forward and backward", "weights, MiB", "beyond them, counted", "resident", "counted / ours")
    return (
        f"ViT-B, three teachers, five tasks, one image of {SIZE} x {SIZE}, training mode, float32; "
        f"{IN_TURN.format(rounds=ROUNDS)}. {agreement}\n\n{table(RATIO_HEADER, times)}\n\n"
        f"Where the time of a forward and backward pass goes, from torch's profiler:\n\n{shares}\n\n"
        "Memory of two images forward and backward, in fresh processes: activations and gradients at their highest, as "
        f"the sum of live storages and as growth of the process.\n\n{table(header, rows)}"
    )


def compared() -> tuple[str, str]:
    """How closely both agree, and shares of kinds of operators in their time."""
    keep_freed()
    ours, plain = students()
    images = batch(SIZE)["image"]
    agreement = compare(ours, plain, images)
    return agreement, table(("kind of operator", "plain, s", "ours, s"), profiled(plain, ours, images))


def maps(student: nn.Module, images: Tensor) -> list[Tensor]:
    output = student(images)
    predictions, paths = (output.predictions, output.paths) if hasattr(output, "paths") else output[:2]
    return [*predictions.values(), *(level for levels in paths.values() for level in levels)]


def predict(student: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        maps(student, images)


def loss(outputs: Iterable[Tensor]) -> Tensor:
    return sum(output.square().mean() for output in outputs)


def learn(student: nn.Module, images: Tensor) -> None:
    student.zero_grad()
    loss(maps(student, images)).backward()


def compare(ours: nn.Module, plain: nn.Module, images: Tensor) -> str:
    """Both must compute the same, or their times could not be compared."""

    def gradients(student: nn.Module) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)  # of the gates' noise
        outputs = maps(student, images)
        loss(outputs).backward()
        gradient = torch.cat([p.grad.flatten() for _, p in sorted(student.named_parameters())])
        student.zero_grad()
        return torch.cat([output.detach().flatten() for output in outputs]), gradient

    errors = [
        float((one - other).norm() / other.norm()) for one, other in zip(gradients(ours), gradients(plain), strict=True)
    ]
    if max(errors) > 1e-4:
        raise AssertionError(f"outputs and gradients of the two forms differ by {errors}")
    return f"Outputs differ by {errors[0]:.0e} of their norm, gradients by {errors[1]:.0e}."


def profiled(plain: nn.Module, ours: nn.Module, images: Tensor) -> list[tuple[str, ...]]:
    """Rows: a kind of operators, and the processor seconds and share of it in each form."""

    def seconds(student: nn.Module) -> dict[str, float]:
        summed = dict.fromkeys([*KINDS, "other"], 0.0)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            learn(student, images)
        for event in profiler.key_averages():
            names = (kind for kind, parts in KINDS.items() if any(part in event.key for part in parts))
            summed[next(names, "other")] += event.self_cpu_time_total / 1e6
        return summed

    forms = [seconds(student) for student in (plain, ours)]
    totals = [sum(form.values()) for form in forms]
    rows = [
        (kind, *(f"{form[kind]:.2f} ({form[kind] / total:.0%})" for form, total in zip(forms, totals, strict=True)))
        for kind in forms[0]
    ]
    return [*rows, ("**all**", *(f"{total:.2f}" for total in totals))]


def form_memory(form: str) -> dict:
    student = students()[form == "plain"]
    if form != "plain":
        keep_freed()
    if form == "recomputed":
        student.activation_checkpointing = True

    def objective(model: nn.Module, content: dict) -> tuple[Tensor, dict]:
        return loss(maps(model, content["image"])), {}

    content = {"image": batch(SIZE, 2)["image"]}
    before = resident()
    learn(student, content["image"])
    grown = peak_beyond(before)
    student.zero_grad()
    weights, peak = step_memory(student, [student], objective, content)
    return {"weights": weights / 2**20, "counted": (peak - weights) / 2**20, "resident": grown}


if __name__ == "__main__":
    print(json.dumps(form_memory(*sys.argv[1:])))

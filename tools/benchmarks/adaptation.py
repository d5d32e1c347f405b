"""How a training step of LoSA grows with the backbone's depth, width and tokens, beside full fine-tuning.

Times are measured; memory is counted on tensors without data, as `sak.preflight.plan` does.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import timm
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.timing import seconds, table
from sak.adaptation import LoSA
from sak.preflight.plan import step_memory

PATCH, RANK = 16, 8
_, CACHED, FULL = METHODS = ("LoSA", "LoSA, cached", "full fine-tuning")


class Shape(NamedTuple):
    """Of a backbone and its image: blocks, width and tokens of a side."""

    depth: int = 12
    width: int = 384
    side: int = 14


AXES: Mapping[str, tuple[Callable[[Shape], int], Sequence[Shape]]] = {
    "depth": (lambda shape: shape.depth, [Shape(depth=depth) for depth in (6, 12, 24, 48)]),
    "width": (lambda shape: shape.width, [Shape(width=width) for width in (192, 384, 768, 1152)]),
    "tokens": (lambda shape: shape.side**2, [Shape(side=side) for side in (7, 14, 28, 42)]),
}


def run() -> tuple[str, Figure]:
    found = {shape: measured(shape) for _, shapes in AXES.values() for shape in shapes}
    tables = []
    for axis, (of, shapes) in AXES.items():
        rows = [
            (str(of(shape)), *(f"{s:.2f}" for s, _ in found[shape]), *(f"{m / 2**20:.0f}" for _, m in found[shape]))
            for shape in shapes
        ]
        header = (axis, *(f"{method}, s" for method in METHODS), *(f"{method}, MiB" for method in METHODS))
        tables.append(table(header, rows))
    base = Shape()
    text = (
        "A training step on one image: forward, backward, AdamW, in float32. Plain vision transformers of "
        f"{base.depth} blocks, width {base.width} and {base.side} × {base.side} tokens, of which one number is varied; "
        f"a side network of rank {RANK} at every block. *Cached*: the backbone's maps are given. Processor seconds, "
        "the second of two steps; memory: weights, gradients, the optimizer's states and all activations at their "
        "highest, counted."
    )
    text = "\n\n".join([text, *tables])
    return text, figure(found)


def measured(shape: Shape) -> list[tuple[float, int]]:
    """(processor seconds, bytes) of each method."""
    return [(timed(shape, method), counted(shape, method)) for method in METHODS]


def backbone(shape: Shape) -> nn.Module:
    return timm.create_model(
        "vit_small_patch16_224", num_classes=0, img_size=shape.side * PATCH, embed_dim=shape.width, depth=shape.depth,
        num_heads=max(1, shape.width // 64),
    )  # fmt: skip


def build(shape: Shape, method: str) -> nn.Module:
    if method == FULL:
        return backbone(shape)
    losa = LoSA(backbone(shape), RANK, taps=range(shape.depth))
    if method == CACHED:
        losa.backbone = nn.Identity()  # it need not be in memory
    return losa


def batch_of(shape: Shape, method: str) -> dict[str, Tensor]:
    """An image, or the backbone's maps of one."""
    if method == CACHED:
        return {str(block): torch.zeros(1, shape.width, shape.side, shape.side) for block in range(shape.depth)}
    return {"image": torch.zeros(1, 3, shape.side * PATCH, shape.side * PATCH)}


def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict]:
    """As an objective of `step_memory`."""
    output = model(batch["image"]) if "image" in batch else model(None, list(batch.values()))
    levels = [output] if isinstance(output, Tensor) else output
    return torch.stack([level.square().mean() for level in levels]).sum(), {}


def timed(shape: Shape, method: str) -> float:
    model, batch = build(shape, method), batch_of(shape, method)
    optimizer = torch.optim.AdamW(weight for weight in model.parameters() if weight.requires_grad)

    def once() -> None:
        optimizer.zero_grad()
        loss(model, batch)[0].backward()
        optimizer.step()

    once()
    return seconds(once, time.process_time)


def counted(shape: Shape, method: str) -> int:
    with torch.device("meta"):
        model = build(shape, method)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        _, peak = step_memory(model, [model], loss, batch_of(shape, method))
    return peak + sum(
        2 * weight.numel() * weight.element_size() for weight in model.parameters() if weight.requires_grad
    )


def figure(found: Mapping[Shape, Sequence[tuple[float, int]]]) -> Figure:
    """Two rows, time and memory; a column for each of depth, width and tokens."""
    drawing = Figure(figsize=(9.6, 5), dpi=100, layout="constrained")
    axes = drawing.subplots(2, len(AXES), sharey="row")
    units = (("processor seconds of a step", 0, 1.0), ("memory of a step, MiB", 1, 2.0**20))
    for column, (axis, (of, shapes)) in enumerate(AXES.items()):
        for row, (label, place, unit) in enumerate(units):
            panel = axes[row][column]
            for number, method in enumerate(METHODS):
                values = [found[shape][number][place] / unit for shape in shapes]
                panel.plot([of(shape) for shape in shapes], values, "o-", ms=3.5, label=method)
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            panel.set_xticks([of(shape) for shape in shapes], [str(of(shape)) for shape in shapes])
            panel.minorticks_off()
            panel.tick_params(labelsize=7)
            panel.set_xlabel(axis, fontsize=8)
            panel.grid(alpha=0.3)
            if column == 0:
                panel.set_ylabel(label, fontsize=8)
    axes[0][0].legend(fontsize=7, frameon=False)
    return drawing

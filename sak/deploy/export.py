"""A student as a file for other runtimes: ONNX, or a program of torch.export.

Input ``images``: (B, 3, H, W) RGB float32 in [0, 1]. Outputs named as the tasks: (B, C, H, W) float32, the raw logits
and values of ``StudentOutput.predictions``. What they stand for is noted in the file.
"""

import contextlib
import copy
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from sak.bundles.tasks import tasks_of
from sak.deploy.exported import Difference, OnnxStudent, ProgramStudent, check, compare
from sak.deploy.extras import require
from sak.errors import UserError
from sak.files import replacing
from sak.student import Student

FORMATS = ("onnx", "torch_export")
PRECISIONS = ("fp32", "fp16", "int8")
NOTES = "sak.json"  # in a program of torch.export; in ONNX each key is one of the metadata
MOST_PATCHES, MOST_IMAGES = 4096, 65536  # along a side, of a batch: what dynamic sizes are promised up to
OPSET = 20


class ExportedStudent(nn.Module):
    """What is traced: {task: raw outputs}, in float32 whatever the weights are."""

    def __init__(self, student: Student, tasks: Sequence[str], half: bool = False):
        super().__init__()
        self.student = copy.deepcopy(student).cpu().eval()
        self.student.drop_aligners()
        if half:
            self.student.half()
        self.tasks, self.half_precision = list(tasks), half

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        output = self.student(images.half() if self.half_precision else images, tasks=self.tasks)
        return {task: maps.float() for task, maps in output.predictions.items()}


def export(
    student: Student,
    path: Path,
    kind: str = "onnx",
    dynamic: bool = False,
    tasks: Sequence[str] | None = None,
    precision: str = "fp32",
) -> list[Difference]:
    """Write the file, and compare it with the student on photographs before it takes its place.

    Args:
        kind: one of `FORMATS`.
        dynamic: any number of images, of any size that the patch divides and that has two patches along each side;
            else one image of training's size.
        tasks: those to predict; None: all.
        precision: of the weights: ``fp32``; ``fp16``, which computes in it too; ``int8``, of ONNX alone, for the
            matrices of linear maps, whose activations are quantised as they come.

    Returns:
        what differs, for each task and each size and number of images that was tried.

    Raises:
        UserError: a task or a combination that there is not, a library is missing, or the file in fp32 differs from the
            student.
    """
    known = tasks_of(student)
    chosen = list(tasks or known)
    if strangers := [name for name in chosen if name not in known]:
        raise UserError(f"the student has no task {strangers[0]!r}; it has: {', '.join(known) or 'none'}")
    if precision == "int8" and kind != "onnx":
        raise UserError("int8 is of --format onnx alone")
    if kind == "onnx":
        require("export", "onnx", "onnxscript", "onnxruntime")
    # Before the minutes that it takes.
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the name of a file")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{path.parent} is not writable: choose another --out")
    notes = notes_of(student, chosen, precision)
    model = ExportedStudent(student, chosen, half=precision == "fp16").eval()
    program = trace(model, student, dynamic)
    with replacing(path) as partial:
        if kind == "onnx":
            write_onnx(program, partial, chosen, notes, eight_bits=precision == "int8")
        else:
            with partial.open("wb") as file:  # given its name, torch asks for a suffix
                torch.export.save(program, file, extra_files={NOTES: json.dumps(notes)})
        read = OnnxStudent(partial) if kind == "onnx" else ProgramStudent(partial)
        differences = list(compare(student, read, {name: bool(known[name].classes) for name in chosen}, dynamic))
        if precision == "fp32":
            check(differences)
    return differences


def trace(model: ExportedStudent, student: Student, dynamic: bool) -> ExportedProgram:
    """The program for any size, or for one image of training's.

    Two images, and sides of different lengths: no 1 and no square is taken for what is always so.
    """
    height, width = student.image_size
    patch = student.stem.patch_size
    shapes = None
    if dynamic:
        rows, columns = (Dim(name, min=2, max=MOST_PATCHES) for name in ("rows", "columns"))
        shapes = {"images": {0: Dim("batch", min=1, max=MOST_IMAGES), 2: patch * rows, 3: patch * columns}}
        example = torch.rand(2, 3, max(height, 2 * patch), max(width, 2 * patch) + patch)
    else:
        example = torch.rand(1, 3, height, width)
    with torch.no_grad(), quiet():
        return torch.export.export(model, (example,), dynamic_shapes=shapes)


def write_onnx(program: ExportedProgram, path: Path, tasks: Sequence[str], notes: dict, eight_bits: bool) -> None:
    """With the notes as metadata, and in one file."""
    import onnx

    with quiet():
        made = torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=list(tasks),
            verbose=False,
        )
    assert made is not None
    model = made.model_proto
    if eight_bits:
        model = quantised(model)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in notes.items()})
    onnx.save_model(model, path)


def quantised(model: Any) -> Any:
    """An ONNX model whose linear maps have matrices in 8 bits, with a scale for each output."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, quiet():
        source, target = f"{folder}/float.onnx", f"{folder}/int8.onnx"
        onnx.save_model(model, source)
        kinds = ["MatMul", "Gemm"]  # convolutions in 8 bits are slower than in float32 on CPUs
        quantize_dynamic(source, target, op_types_to_quantize=kinds, per_channel=True, weight_type=QuantType.QInt8)
        return onnx.load(target)


def notes_of(student: Student, tasks: Sequence[str], precision: str) -> dict:
    """What whoever runs the file has to know."""
    known = tasks_of(student)
    described = {}
    for name in tasks:
        task = known[name]
        colours = task.colour(np.arange(task.channels)[None])[0].tolist() if task.classes else []
        described[name] = {"channels": task.channels, "classes": list(task.classes), "colours": colours}
    return {
        "producer": "sak",
        "images": "RGB float32 in [0, 1], (B, 3, H, W)",
        "patch_size": student.stem.patch_size,
        "image_size": list(student.image_size),
        "precision": precision,
        "tasks": described,
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters tell of their insides at length."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "root")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(None):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

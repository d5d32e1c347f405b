"""Trained students as frozen models: the stem of one, to build upon."""

import contextlib
from pathlib import Path

from torch import Tensor

from sak.errors import UserError
from sak.files import read_json
from sak.student import BundleError, Student
from sak.student.hub import CONFIG, FORMAT_KEY
from teachers.base import RANDOM, Teacher, TeacherSpec, building


class TrainedStudent(Teacher):
    """The stem of a student: what it has learned from all its teachers at once.

    `model` is a finished run or a bundle; `weights` is left out, or "random" for an untrained stem of the same form.
    Levels are any blocks of the stem.
    """

    LIBRARIES = ("timm",)

    def __init__(self, name: str, spec: TeacherSpec):
        if spec.weights not in (None, RANDOM):
            raise UserError(
                f"teacher {name}: weights is {spec.weights!r}, but they are those of `model`: leave it out."
            )
        places = (Path(spec.model) / "student", Path(spec.model))
        bundle = next((place for place in places if (place / CONFIG).is_file()), None)
        if bundle is None:
            raise UserError(f"teacher {name}: model is {spec.model}, but there is no finished run and no bundle.")
        try:
            if spec.weights == RANDOM:
                settings = read_json(bundle / CONFIG)
                settings.pop(FORMAT_KEY, None)
                with building(name, spec):
                    student = Student(**settings)
            else:
                with contextlib.redirect_stdout(None):  # the hub's client announces what it does
                    student = Student.from_pretrained(bundle)
        except BundleError as error:
            raise UserError(f"teacher {name}: {error}") from error
        stem = student.stem
        super().__init__(
            name,
            spec,
            stem,
            widths=[stem.width] * stem.depth,
            strides=[stem.patch_size] * stem.depth,
            mean=student.mean.flatten().tolist(),
            std=student.std.flatten().tolist(),
        )

    def features(self, inputs: Tensor) -> list[Tensor]:
        tokens = self.backbone(inputs)
        grid = self.backbone.grid(*inputs.shape[-2:])
        return [tokens[level + 1][:, 1:].transpose(1, 2).unflatten(2, grid) for level in self.levels]

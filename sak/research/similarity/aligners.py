"""A finished student as it was distilled: with the aligners of its paths, and beside what these have learned.

Legend: B batch, D_t teacher width, h,w grid, H,W canvas.
"""

from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from sak import config as configuration
from sak.bundles.build import aligned_teachers, build_committee, build_student, build_tasks
from sak.bundles.bundle import find_bundle, load_student
from sak.bundles.change import changed_student, trained_student
from sak.config.derived import change, distils, taught_by
from sak.config.schema import STAGES
from sak.distillation.standardisation import Standardiser
from sak.errors import UserError
from sak.student import Student
from sak.student.growth import fold
from sak.training import checkpoint
from sak.training.standardising import run_of, statistics_of
from teachers import Committee


class Learned(nn.Module):
    """The features that paths have learned: images (B, 3, H, W) -> {teacher: [per level (B, D_t, h, w)]}.

    Args:
        standardiser: of the teachers' features; None where the paths have learned these as they are.
    """

    def __init__(self, committee: Committee, standardiser: Standardiser | None):
        super().__init__()
        self.committee, self.standardiser = committee, standardiser
        self.kind = standardiser.kind if standardiser else "none"

    def forward(self, images: Tensor) -> dict[str, list[Tensor]]:
        features = self.committee(images)
        return self.standardiser(features) if self.standardiser else features


def as_distilled(place: str, config: DictConfig) -> tuple[Student, Learned, dict[str, list[int]]]:
    """The student of a run or a bundle, what its paths have learned, and {teacher: its width at each level}.

    Of a run that changed a trained student there is but the teacher that it distilled: the aligners to the others are
    in earlier runs.

    Args:
        config: that it was trained with.

    Raises:
        UserError: the student, its aligners, its teachers or their statistics cannot be had, or do not fit each other.
    """
    changed = change(config)
    if changed and changed[0] == "remove":
        raise UserError(f"{place} removed a teacher and distilled none: give the run that it started from")
    student = load_student(find_bundle(place))
    source = trained_student(config)
    committee = build_committee(config, taught_by(config))
    dims = committee.dims
    if list(dims) != [name for name in student.paths if not changed or name == changed[1]]:
        raise UserError(
            f"the student of {place} has paths of {', '.join(student.paths) or 'no teacher'}, but the config's "
            f"teachers are {', '.join(dims) or 'none'}: give the config that it was trained with"
        )
    tasks = build_tasks(config.data) if config.data.tasks else {}
    if source:
        trained = changed_student(config, source, tasks if source.heads else {}, dims)
    else:
        trained = build_student(config, tasks, dims)
    return with_aligners(student, place, trained), Learned(committee, learned_standardiser(place, config, dims)), dims


def with_aligners(student: Student, place: str, trained: Student) -> Student:
    """The student of a run or a bundle with the aligners that its paths were distilled through.

    A finished run drops them from its bundle; its last checkpoint still has them.

    Args:
        student: of the bundle at `place`.
        trained: a student as the run built it, which gets the weights.

    Raises:
        UserError: they are nowhere.
    """
    if aligned_teachers(student) == aligned_teachers(trained):
        return student
    lacking = [name for name in aligned_teachers(trained) if name not in aligned_teachers(student)]
    path = checkpoint.newest(Path(place) / "checkpoints")
    if path is None:
        raise UserError(
            f"the student at {place} has lost the aligners to {', '.join(lacking)}, which a finished run keeps in its "
            "checkpoints alone: give a run whose checkpoints are there, or that ended with its first stage"
        )
    state = checkpoint.load(path)["student"]
    trained.set_image_size(student.image_size)
    try:
        trained.load_state_dict(state, strict=True)
    except RuntimeError:  # another architecture
        same = False
    else:
        fold(trained)  # as the bundle is
        ours, theirs = trained.state_dict(), student.state_dict()
        same = all(key in ours and torch.allclose(ours[key], value, rtol=1e-6, atol=0) for key, value in theirs.items())
    if not same:
        raise UserError(f"{path} is not of the student at {place}: their weights differ")
    return trained.eval()


def learned_standardiser(place: str, config: DictConfig, dims: dict[str, list[int]]) -> Standardiser | None:
    """With the statistics of the features that the paths learned last; None where features were as the teachers'.

    Args:
        config: of the run; where no stage of it distils, the run that it started from is asked.
        dims: {teacher: its width at each level}.

    Raises:
        UserError: features were standardised, but the statistics are not in the run's last checkpoint.
    """
    distilling = [stage for stage in STAGES if distils(config, stage)]
    if not distilling:
        before = config.student.weights
        if before is None or not (Path(before) / "config.yaml").is_file():
            return None
        return learned_standardiser(before, configuration.load(Path(before) / "config.yaml"), dims)
    kind = config.stages[distilling[-1]].standardise
    if kind == "none":
        return None
    standardiser = Standardiser(kind, dims)
    standardiser.load_state_dict(statistics_of(run_of(place) or Path(place), kind), strict=True)
    return standardiser

"""Fine-tuning in one flag: ``from=RUN`` of a student that was trained to its end trains on, without its teachers."""

from collections.abc import Collection
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from sak.config.derived import change, distils
from sak.config.schema import STAGES
from sak.errors import UserError
from sak.files import read_json

# What is not asked for on the command line. Reached without aligners, teachers would have to be learnt anew.
TUNED = {"stages.distill.steps": 0, "stages.multitask.alpha": 0.0}


def tune(config: DictConfig, given: Collection[str]) -> None:
    """Leave out the distillation where a config starts from a student that has no aligners left, unless asked for it.

    Args:
        given: the keys on the command line.
    """
    if "student.weights" not in given or config.student.weights is None or change(config):
        return
    if not _is_finished(Path(config.student.weights)):
        return
    for key, value in TUNED.items():
        if key not in given and not (key == "stages.distill.steps" and "stages.distill.epochs" in given):
            OmegaConf.update(config, key, value)
    if not any(distils(config, stage) for stage in STAGES):
        config.student.aligner = False


def _is_finished(place: Path) -> bool:
    """Whether there is a bundle whose aligners were dropped, as a second stage leaves it."""
    for file in (place / "student" / "config.json", place / "config.json"):
        if file.is_file():
            try:
                return read_json(file).get("aligner") is False
            except UserError:  # it is complained of where it is loaded
                return False
    return False

"""Where the statistics of a run's standardised teachers come from: an earlier run, or images."""

import math
from collections.abc import Iterator
from pathlib import Path

from accelerate import Accelerator
from omegaconf import DictConfig
from tqdm import tqdm

from sak.distillation.standardisation import Standardiser
from sak.errors import UserError
from sak.evaluation.evaluate import to_device
from sak.training import checkpoint
from sak.training.batches import TrainingBatches
from sak.training.objectives import Features
from teachers import Committee


def build_standardiser(
    config: DictConfig,
    stage: str,
    committee: Committee,
    features: Features,
    batches: TrainingBatches,
    accelerator: Accelerator,
) -> Standardiser:
    """A standardiser for a stage that begins.

    With the statistics of the run of ``student.weights``, if it has any of this kind: its paths have learned these.
    Else, for PHI-S, with those of ``standardise_images`` images, rounded up to the stage's first steps (one epoch at
    the most), which the processes share out.

    Raises:
        UserError: PHI-S cannot be had for a teacher.
    """
    settings = config.stages[stage]
    built = Standardiser(settings.standardise, committee.dims).to(accelerator.device)
    before = _of_run(config.student.weights, settings.standardise)
    if before is not None:
        try:
            built.load_state_dict(before, strict=True)
        except RuntimeError as error:
            reason = str(error).splitlines()[1].strip()
            raise UserError(f"student.weights: that run standardised other teachers: {reason}") from error
        return built
    steps = min(math.ceil(settings.standardise_images / settings.batch_size), batches.steps_per_epoch)

    def computed() -> Iterator:
        progress = tqdm(
            total=steps * settings.batch_size,
            desc="statistics of the teachers",
            unit="img",
            disable=not accelerator.is_main_process,
            mininterval=1,
        )
        with progress:
            for micro_batches in batches.steps(0, steps):
                for batch in micro_batches:
                    with accelerator.autocast():
                        found = features(to_device(batch, accelerator.device))
                    yield found  # outside: else whoever reads it would compute in half precision too
                progress.update(settings.batch_size)

    try:
        built.fit(computed(), accelerator.reduce)
    except ValueError as error:
        raise UserError(f"stages.{stage}.standardise is {settings.standardise}, but {error}") from error
    return built


def _of_run(place: str | None, kind: str) -> dict | None:
    newest = checkpoint.newest(Path(place) / "checkpoints") if place else None
    return checkpoint.load(newest).get("standardise", {}).get(kind) if newest else None

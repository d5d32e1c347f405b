"""Where the statistics of a run's standardised teachers come from: an earlier run, or images."""

import math
from collections.abc import Iterator
from pathlib import Path

from accelerate import Accelerator
from omegaconf import DictConfig
from torch import Tensor

from sak import config as configuration
from sak.config.derived import change, distils, taught_by
from sak.config.schema import STAGES
from sak.distillation.standardisation import Standardiser
from sak.errors import UserError
from sak.evaluation.evaluate import to_device
from sak.progress import progress_bar
from sak.training import checkpoint
from sak.training.batches import TrainingBatches
from sak.training.objectives import Features
from teachers import Committee


def run_of(place: str | Path) -> Path | None:
    """The run at `place`, or the one that left the bundle at `place`; None where a bundle is out of its run."""
    candidates = (Path(place), Path(place).resolve().parent)
    return next((path for path in candidates if (path / "config.yaml").is_file()), None)


def learned(place: str | Path) -> dict[str, tuple[str, Path]]:
    """What the paths at `place` learned last: {teacher: (kind of standardisation, the run in which they did)}.

    Teachers are missing of which no run is there to tell.
    """
    run = run_of(place)
    if run is None:
        return {}
    config = configuration.load(run / "config.yaml")
    found = learned(config.student.weights) if config.student.weights is not None else {}
    for stage in STAGES:
        if distils(config, stage):
            found |= dict.fromkeys(taught_by(config), (config.stages[stage].standardise, run))
    return found


def check_kinds(config: DictConfig) -> None:
    """See whether a run that begins would ask its paths for one and the same features from first to last.

    Raises:
        UserError: its stages differ, or its paths have learned others before, or it cannot be told which.
    """
    kinds = {stage: config.stages[stage].standardise for stage in STAGES if distils(config, stage)}
    if len(set(kinds.values())) > 1:
        settings = " and ".join(f"stages.{stage}.standardise is {kind}" for stage, kind in kinds.items())
        raise UserError(
            f"{settings}: the second would ask the paths for other features than they have learned; set both alike"
        )
    if not kinds or not _go_on(config):
        return
    kind, place = next(iter(kinds.values())), config.student.weights
    before = learned(place)
    for teacher in taught_by(config):
        had = before[teacher][0] if teacher in before else None
        if had is None and kind != "none":
            raise UserError(
                f"student.weights: nothing tells by which statistics the path of {teacher} at {place} was standardised "
                f"when it learned, and stages.*.standardise is {kind}: give the run that it is from, with its "
                "checkpoints, or set standardise to none"
            )
        if had not in (None, kind):
            raise UserError(
                f"student.weights: the path of {teacher} at {place} has learned features with standardise={had}, but "
                f"stages.*.standardise is {kind}: set it to {had} in every stage that distils"
            )


def _go_on(config: DictConfig) -> bool:
    """Whether the paths that are taught have learned before; a teacher that is added has a new one."""
    changed = change(config)
    return config.student.weights is not None and not (changed and changed[0] == "add")


def build_standardiser(
    config: DictConfig,
    stage: str,
    committee: Committee,
    features: Features,
    batches: TrainingBatches,
    accelerator: Accelerator,
) -> Standardiser:
    """A standardiser for a stage that begins.

    Where paths have learned before, with the statistics of the run of ``student.weights`` in which they did. Else, for
    PHI-S, with those of ``standardise_images`` images, rounded up to the stage's first steps (one epoch at the most),
    which the processes share out.

    Raises:
        UserError: the statistics, or PHI-S for a teacher, cannot be had.
    """
    settings = config.stages[stage]
    built = Standardiser(settings.standardise, committee.dims).to(accelerator.device)
    if _go_on(config):
        statistics = _learned_statistics(config, settings.standardise, accelerator.is_main_process)
        try:
            built.load_state_dict(statistics, strict=True)
        except RuntimeError as error:
            reason = str(error).splitlines()[1].strip()
            raise UserError(f"student.weights: that run standardised other teachers: {reason}") from error
        return built
    steps = min(math.ceil(settings.standardise_images / settings.batch_size), batches.steps_per_epoch)

    def computed() -> Iterator:
        shown = accelerator.is_main_process
        with progress_bar(steps * settings.batch_size, "statistics of the teachers", shown=shown) as progress:
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


def _learned_statistics(config: DictConfig, kind: str, verify: bool) -> dict[str, Tensor]:
    """Those of the teachers that a config asks, from the last checkpoints of the runs that their paths learned in."""
    before = learned(config.student.weights)
    runs = {teacher: before[teacher][1] for teacher in taught_by(config)}
    of_runs = {run: statistics_of(run, kind, verify) for run in set(runs.values())}
    return {
        name: values
        for teacher, run in runs.items()
        for name, values in of_runs[run].items()
        if name.startswith(f"teachers.{teacher}.")
    }


def statistics_of(run: Path, kind: str, verify: bool = True) -> dict[str, Tensor]:
    """Those that a run standardised its teachers by, from its last checkpoint.

    Raises:
        UserError: it has none, or no checkpoint any more.
    """
    newest = checkpoint.newest(run / "checkpoints")
    statistics = checkpoint.load(newest, verify).get("standardise", {}).get(kind) if newest else None
    if statistics is None:
        raise UserError(
            f"the paths of {run} learned features standardised by {kind}, but the statistics are not there: "
            "give the run with its checkpoints, which alone have them"
        )
    return statistics

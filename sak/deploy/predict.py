"""Predictions for any number of pictures as files: what is there already is not computed again."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sak import plotting
from sak.deploy.pictures import Shot, find_shots, read_shots
from sak.deploy.prediction import Prediction
from sak.deploy.predictor import Predictor
from sak.errors import UserError
from sak.evaluation.distributed import keep_freed
from sak.evaluation.subject import check_output
from sak.files import read_json, replacing, tidy, write_json
from teachers.fingerprints import weights_hash

ORIGIN = "predictions.json"  # what all files of a folder were predicted with
PANELS, ARRAYS = "panels", "arrays"


@dataclass(frozen=True)
class Results:
    """Where the results lie: ``<task>/NAME.png``, and ``panels/NAME.png``, ``arrays/NAME.npz`` if asked for."""

    folder: Path
    tasks: Sequence[str]
    panels: bool = True
    arrays: bool = False

    def files(self, shot: Shot) -> list[Path]:
        """All that there is of a picture once it is done."""
        extra = [PANELS] * self.panels
        found = [self.folder / place / f"{shot.name}.png" for place in (*self.tasks, *extra)]
        return found + [self.folder / ARRAYS / f"{shot.name}.npz"] * self.arrays

    def complete(self, shot: Shot) -> bool:
        """Whether all of it is there, and no older than the picture."""
        try:
            taken = shot.path.stat().st_mtime
            return all(file.stat().st_mtime >= taken for file in self.files(shot))
        except FileNotFoundError:
            return False

    def write(self, shot: Shot, prediction: Prediction) -> None:
        for task in self.tasks:
            prediction.save(self.folder / task / f"{shot.name}.png", task)
        if self.arrays:
            with replacing(self.folder / ARRAYS / f"{shot.name}.npz") as partial, partial.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **dict(prediction))
        if self.panels:
            plotting.save(prediction.panel(), self.folder / PANELS / f"{shot.name}.png")


def predict(
    predictor: Predictor, places: list[str], out: Path, panels: bool = True, arrays: bool = False, every: int = 1
) -> tuple[int, list[str]]:
    """Write the predictions for all pictures at these places, as far as they are not there.

    Args:
        places, every: see `find_shots`.

    Returns:
        how many were written, and for each picture that could not be read what is wrong with it.

    Raises:
        UserError: a place stands for nothing, or `out` holds something else.
    """
    if predictor.device.type == "cpu":
        keep_freed()
    shots, notes = find_shots(places, every)
    for note in notes:
        tqdm.write(note)
    results = Results(out, list(predictor.tasks), panels, arrays)
    _begin(out, predictor)
    left = [shot for shot in shots if not results.complete(shot)]
    for folder in {file.parent for shot in left for file in results.files(shot)}:
        tidy(folder)  # of what a killed start left
    faults: list[str] = []
    waiting: deque[Shot] = deque()

    def pictures() -> Iterator[np.ndarray]:
        for shot, pixels in read_shots(left):
            if isinstance(pixels, UserError):
                faults.append(str(pixels))
                progress.update()
            else:
                waiting.append(shot)
                yield pixels

    with tqdm(total=len(shots), initial=len(shots) - len(left), desc="predict", unit="img", mininterval=1) as progress:
        written = 0
        for prediction in predictor.each(pictures()):
            results.write(waiting.popleft(), prediction)
            written += 1
            progress.update()
    return written, faults


def _begin(out: Path, predictor: Predictor) -> None:
    """Note in `out` what all of its predictions are made with.

    Raises:
        UserError: those in it were made with something else, or it holds what is of somebody else.
    """
    own = {
        "student": weights_hash(predictor.student),
        "without": list(predictor.without),
        "longest_edge": predictor.longest_edge,
        "whole": predictor.whole,
        "precision": predictor.precision,
    }
    check_output(out, replaced=list(predictor.tasks), proof=ORIGIN)
    if (out / ORIGIN).is_file():
        theirs = {"precision": "fp32", **read_json(out / ORIGIN)}  # once there was no other
        differing = [key for key in own if theirs.get(key) != own[key]]
        if differing:
            raise UserError(
                f"{out} holds predictions that were made with another {differing[0]} ({theirs.get(differing[0])}, "
                f"here {own[differing[0]]}): choose another --out, or delete it"
            )
    else:
        write_json(out / ORIGIN, own)

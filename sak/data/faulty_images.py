"""Images that a run does without because their files are faulty: counted, listed, and no more than the user allows."""

import math
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from sak.config.schema import DataConfig
from sak.errors import UserError
from sak.files import write_text


class Skips:
    """The faulty images of one part of the data.

    The list is one file of the run for all parts and processes, a line for each image: part, index and what is wrong,
    separated by tabs. It outlives a kill, so that an image counts once.

    Args:
        file: the list.
        part: what the list calls this part: "distill", "multitask" or "val".
        images: how many the part has.
        share: of them, that may be faulty.
        replaced: whether the next image that is not faulty stands in (in training, where the length of an epoch must
            stay), or none (in an evaluation). Either way what is seen depends on the files alone, not on the process.
    """

    def __init__(self, file: Path, part: str, images: int, share: float, replaced: bool):
        self.file, self.part, self.images, self.share, self.replaced = file, part, images, share, replaced
        self.allowed = math.floor(share * images + 1e-9)
        self.listed()  # so that a list that is none is told at once

    def listed(self) -> dict[int, str]:
        """{index: what is wrong}

        Raises:
            UserError: the file is none that a run has written.
        """
        faults = {}
        for number, line in enumerate(self._lines(), start=1):
            part, _, row = line.partition("\t")
            index, tab, reason = row.partition("\t")
            if not tab or not index.isascii() or not index.isdigit():
                raise UserError(
                    f"{self.file}, line {number}, is none that a run writes: delete the file; faulty images are found "
                    "again"
                )
            if part == self.part:
                faults[int(index)] = reason
        return faults

    def sentence(self) -> str | None:
        """For the results: how many there are, and what became of them."""
        if not (count := len(self.listed())):
            return None
        fate = "the next image stood in for each" if self.replaced else "they are left out of all metrics"
        return f"{count} of {self.images} images of `{self.part}` are faulty (`{self.file.name}`): {fate}."

    def note(self, faults: Mapping[int, str]) -> None:
        """List what is new.

        Raises:
            UserError: that is more than allowed.
        """
        new = faults.keys() - self.listed().keys()
        if not new:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        for index in sorted(new):
            reason = " ".join(faults[index].split())
            tqdm.write(f"skipped image {index} of {self.part}: {reason}")
            with open(self.file, "a", encoding="utf-8") as file:
                file.write(f"{self.part}\t{index}\t{reason}\n")
        if (count := len(self.listed())) > self.allowed:
            raise UserError(
                f"{count} of {self.images} images of {self.part} are faulty, more than the {self.allowed} that "
                f"data.max_skipped={self.share:g} allows; {self.file} lists them: restore the files, or allow more"
            )

    def forget(self) -> None:
        """Take this part off the list: its images are about to be looked at again."""
        if self.listed():
            write_text(self.file, "".join(f"{line}\n" for line in self._lines() if line.split("\t")[0] != self.part))

    def _lines(self) -> list[str]:
        text = self.file.read_text(encoding="utf-8", errors="replace") if self.file.exists() else ""
        return [line for line in text.split("\n") if line]


def build_skips(settings: DataConfig | DictConfig, file: Path, part: str, images: int, replaced: bool) -> Skips | None:
    """As the config has it; None where a faulty image stops the run. The arguments are those of `Skips`."""
    if settings.on_error == "stop":
        return None
    return Skips(file, part, images, settings.max_skipped, replaced)

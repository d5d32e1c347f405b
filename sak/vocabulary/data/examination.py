"""What a config's samples are: read or rendered before a training, counted, measured, and seen on a contact sheet."""

import textwrap
from collections import defaultdict
from typing import NamedTuple

import matplotlib.patches
import numpy as np
from matplotlib.figure import Figure
from omegaconf import DictConfig
from tqdm import tqdm

from sak.config.vocabulary import VocabularyDataConfig
from sak.data.loading import evenly_spread
from sak.errors import UserError
from sak.vocabulary.data import build
from sak.vocabulary.data.mixture import SPLITS, Mixture
from sak.vocabulary.prompts import parse_boxes

READ = 200  # samples of a split
SHOWN = 24  # of the training's first on the sheet, which has so many ...
ABREAST = 6  # ... in a row
WIDTH, MOST_LINES = 30, 5  # characters of a line below a sample, and lines
TRUTH = "tab:green"


class Findings(NamedTuple):
    """
    Attributes:
        facts: (subject, fact) in the order of telling.
        problems: sentences.
    """

    facts: list[tuple[str, str]]
    problems: list[str]


def examine(data: VocabularyDataConfig | DictConfig, samples: int = READ, progress: bool = True) -> Findings:
    """Make so many evenly spread samples of each split.

    Raises:
        UserError: what a kind of samples needs is missing.
    """
    findings = Findings([], [])
    for split in SPLITS:
        dataset = build(data, split)
        lengths: dict[str, list[int]] = defaultdict(list)
        indices = evenly_spread(len(dataset), samples)
        for index in tqdm(indices, split, unit="img", disable=not progress, dynamic_ncols=True):
            try:
                sample = dataset.packed(index)
                lengths[sample["kind"]].append(len(sample["answer"]))
            except UserError as error:
                findings.problems.append(f"{split}, sample {index}: {error}")
        findings.facts.append((split, f"{len(dataset):,} samples, of which {len(indices):,} have been made"))
        for number, kind in enumerate(dataset.kinds):
            if found := lengths[kind]:
                different = len(dataset.sources[kind])
                of = f" of {different:,} images or passages" if different else ", drawn"
                findings.facts.append(
                    (f"  {kind}", f"{int((dataset.kind_of == number).sum()):,}{of}; answers have {min(found)} to "
                     f"{max(found)} characters, {np.mean(found):.0f} on average")
                )  # fmt: skip
    return findings


def contact_sheet(dataset: Mixture, count: int = SHOWN) -> Figure:
    """The first samples in the order of training, with their prompts, answers and boxes."""
    count = min(count, len(dataset))
    rows = -(-count // ABREAST)
    figure = Figure(figsize=(2.2 * ABREAST, 3.1 * rows), dpi=100)
    axes = figure.subplots(rows, ABREAST, squeeze=False).ravel()
    figure.subplots_adjust(0.005, 0.28 / rows, 0.995, 1, 0.04, 0.4)  # with room for the texts below
    for axis in axes:
        axis.axis("off")
    for axis, index in zip(axes, range(count), strict=False):
        sample = dataset.packed(index)
        picture = sample["pixels"].permute(1, 2, 0).numpy()
        height, width = picture.shape[:2]
        axis.imshow(picture, interpolation="nearest")
        for x1, y1, x2, y2 in parse_boxes(sample["answer"]).boxes if "[" in sample["answer"] else ():
            corner, size = (x1 * width - 0.5, y1 * height - 0.5), ((x2 - x1) * width, (y2 - y1) * height)
            axis.add_patch(matplotlib.patches.Rectangle(corner, *size, fill=False, color=TRUTH))
        below = {"transform": axis.transAxes, "va": "top", "family": "monospace", "parse_math": False}
        asked, answer = _wrapped(sample["prompt"], 2), _wrapped(sample["answer"] or "(nothing)", MOST_LINES)
        axis.text(0, -0.03, asked, fontsize=6, color="grey", **below)
        axis.text(0, -0.17, answer, fontsize=7, **below)
    return figure


def _wrapped(text: str, most: int) -> str:
    lines = [part for line in text.split("\n") for part in textwrap.wrap(line, WIDTH) or [""]]
    return "\n".join(lines if len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1][: WIDTH - 2]} …"])

"""What a model reads, as a picture: the page, with the boxes of the truth and of the model, and both texts."""

import textwrap
from collections.abc import Sequence

import matplotlib.patches
import torch
from matplotlib.figure import Figure
from torch import Tensor

from sak.vocabulary.prompts import parse_boxes

TRUTH, READ = "tab:green", "tab:red"  # boxes of the truth, and of the model
WIDTH, MOST_LINES = 88, 7  # characters of a line, and lines of a text that are shown


def draw(images: Tensor, prompts: Sequence[str], truths: Sequence[str], read: Sequence[str]) -> Figure:
    """A row for each sample.

    Args:
        images: (B,3,H,W) in [0,1].
    """
    figure = Figure(figsize=(10, 2.6 * len(images)), layout="constrained")
    rows = figure.subplots(len(images), 2, squeeze=False, width_ratios=[1, 2])
    for (left, right), image, prompt, truth, text in zip(rows, images, prompts, truths, read, strict=True):
        left.imshow(torch.as_tensor(image).float().cpu().clamp(0, 1).permute(1, 2, 0).numpy())
        height, width = image.shape[-2:]
        for string, colour in ((truth, TRUTH), (text, READ)):
            for x1, y1, x2, y2 in parse_boxes(string).boxes:
                corner, size = (x1 * width - 0.5, y1 * height - 0.5), ((x2 - x1) * width, (y2 - y1) * height)
                left.add_patch(matplotlib.patches.Rectangle(corner, *size, fill=False, color=colour))
        left.axis("off")
        right.axis("off")
        for place, string, colour in ((0.98, prompt, "black"), (0.8, truth, TRUTH), (0.4, text, READ)):
            right.text(
                0, place, _shown(string), color=colour, va="top", family="monospace", fontsize=8, parse_math=False
            )
    figure.suptitle("truth in green, what the model reads in red", fontsize=9)
    return figure


def _shown(text: str) -> str:
    lines = [part for line in text.split("\n") for part in textwrap.wrap(line, WIDTH) or [""]]
    return "\n".join(lines[:MOST_LINES]).strip() or "(nothing)"

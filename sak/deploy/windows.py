"""A picture in windows of the size that a student knows, and the picture's maps blended from theirs.

The picture lies in the middle of a canvas that is at least one window large, as in training; what it leaves free shows
the mean colour. Windows that overlap are weighed by a pyramid over each, so that no seam is seen, and the weights sum
to 1 at every pixel: where there is but one window, its map is that of a plain forward pass, to the bit.

Shapes: H,W canvas, h,w window, C channels.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sak.data.transforms import MEAN_COLOUR, margins

OVERLAP = 1 / 3  # of a window with the next one, at least
EMPTY = np.array(MEAN_COLOUR, np.float32) * np.float32(255) / np.float32(255)  # rounded as padding is in an evaluation


@dataclass(frozen=True)
class Side:
    """The windows along one side of a canvas.

    Attributes:
        starts: where they begin; evenly, from one end to the other.
        weights: (windows, length of one), which sum to 1 at every pixel of the side.
    """

    starts: Sequence[int]
    weights: Tensor


def split(length: int, window: int) -> Side:
    """So many windows that each overlaps the next one by `OVERLAP` or more."""
    steps = math.ceil((length - window) / (window * (1 - OVERLAP)))
    starts = [round(number * (length - window) / max(steps, 1)) for number in range(steps + 1)]
    pyramid = 1 - ((torch.arange(window) + 0.5) * 2 / window - 1).abs()
    total = torch.zeros(length)
    for start in starts:
        total[start : start + window] += pyramid
    return Side(starts, torch.stack([pyramid / total[start : start + window] for start in starts]))


class Canvas:
    """One picture, its windows, and its raw maps as far as they are known.

    Windows are asked for and handed back in their order, line by line. A line of windows is all that is in memory:
    `add` gives out what no later window touches.

    Args:
        picture: (height, width, 3), uint8, or float32 in [0, 1].
        window: (h, w).
    """

    def __init__(self, picture: np.ndarray, window: tuple[int, int]):
        self.picture, self.window = picture, window
        self.size = picture.shape[:2]
        self.canvas = (max(self.size[0], window[0]), max(self.size[1], window[1]))
        self.margins = margins(self.size, self.canvas)
        self.rows, self.columns = (split(length, side) for length, side in zip(self.canvas, window, strict=True))
        self.count = len(self.rows.starts) * len(self.columns.starts)
        self._added = 0
        self._lines: dict[str, Tensor] = {}  # (C, h, W) of the present line of windows

    def cut(self) -> Iterator[Tensor]:
        """The windows (3, h, w), float32 in [0, 1]."""
        for top in self.rows.starts:
            for left in self.columns.starts:
                yield self._cut(top - self.margins[0], left - self.margins[1])

    def add(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """{task: (C, h, w)} of the next window -> the picture's next lines {task: (C, some, width)}; {} if none yet."""
        row, column = divmod(self._added, len(self.columns.starts))
        self._added += 1
        left, width = self.columns.starts[column], self.window[1]
        for task, values in raw.items():
            if task not in self._lines:
                self._lines[task] = values.new_zeros(len(values), self.window[0], self.canvas[1])
            weights = (self.rows.weights[row][:, None] * self.columns.weights[column]).to(values.device)
            self._lines[task][..., left : left + width] += values * weights
        return self._give_out(row) if column == len(self.columns.starts) - 1 else {}

    def _give_out(self, row: int) -> dict[str, Tensor]:
        top = self.rows.starts[row]
        last = row == len(self.rows.starts) - 1
        known = (self.canvas[0] if last else self.rows.starts[row + 1]) - top
        first = max(0, self.margins[0] - top)  # margins are of canvases of one line of windows
        inside = slice(first, min(known, first + self.size[0]))
        across = slice(self.margins[1], self.margins[1] + self.size[1])
        given = {task: lines[:, inside, across].clone() for task, lines in self._lines.items()}
        for task, lines in self._lines.items():
            self._lines[task] = torch.cat([lines[:, known:], torch.zeros_like(lines[:, :known])], dim=1)
        return given

    def _cut(self, top: int, left: int) -> Tensor:
        """The window whose corner lies there in the picture, or beyond it."""
        window = np.broadcast_to(EMPTY, (*self.window, 3)).copy()
        rows, columns = (
            slice(max(0, start), min(length, start + side))
            for start, length, side in zip((top, left), self.size, self.window, strict=True)
        )
        seen = self.picture[rows, columns]
        scaled = seen.astype(np.float32) / np.float32(255) if seen.dtype == np.uint8 else seen
        window[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = scaled
        return torch.from_numpy(window.transpose(2, 0, 1))


def enlarged(raw: Tensor, size: tuple[int, int], lines: int = 256) -> Iterator[Tensor]:
    """(C, h, w) -> bilinear at (H, W), so many lines at a time; as ``interpolate(..., align_corners=False)``."""
    height, width = size
    scale = raw.shape[1] / height
    for start in range(0, height, lines):
        places = ((torch.arange(start, min(start + lines, height)) + 0.5) * scale - 0.5).clamp(0, raw.shape[1] - 1)
        upper = places.long().clamp(max=max(0, raw.shape[1] - 2))
        share = (places - upper).to(raw)[:, None]
        lower = (upper + 1).clamp(max=raw.shape[1] - 1)
        strip = raw[:, upper.to(raw.device)] * (1 - share) + raw[:, lower.to(raw.device)] * share
        yield torch.nn.functional.interpolate(strip[None], (strip.shape[1], width), mode="bilinear")[0]

"""Windows: they cover a canvas, their maps are blended as a plain sum says, and nothing is lost at borders."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sak.deploy.windows import OVERLAP, Canvas, enlarged, split

SIZES = [(20, 30), (96, 96), (97, 96), (40, 200), (300, 41), (161, 259)]


@pytest.mark.parametrize(("length", "window"), [(96, 96), (97, 96), (160, 96), (161, 96), (1000, 96), (5000, 512)])
def test_windows_cover_a_side_and_their_weights_sum_to_one(length, window):
    side = split(length, window)
    total = torch.zeros(length)
    for start, weights in zip(side.starts, side.weights, strict=True):
        assert (weights > 0).all()
        total[start : start + window] += weights
    torch.testing.assert_close(total, torch.ones(length))
    assert (side.starts[0], side.starts[-1] + window) == (0, length)
    assert all(after - before <= window * (1 - OVERLAP) + 1 for before, after in itertools.pairwise(side.starts))
    # None more than is needed.
    assert len(side.starts) == 1 + -(-(length - window) * 3 // (window * 2))


@pytest.mark.parametrize("size", SIZES)
def test_a_map_of_each_pixel_alone_comes_back_whole(size):
    """What does not depend on the window is the same in all of them: blended, it is the picture."""
    picture = np.random.default_rng(0).random((*size, 3), dtype=np.float32)
    canvas = Canvas(picture, (96, 96))
    windows = list(canvas.cut())
    assert len(windows) == canvas.count
    lines = [given["colour"] for window in windows if (given := canvas.add({"colour": window}))]
    torch.testing.assert_close(torch.cat(lines, dim=1), torch.from_numpy(picture.transpose(2, 0, 1)))


@pytest.mark.parametrize("size", SIZES)
def test_lines_are_given_out_as_one_sum_over_all_windows_has_them(size):
    """Against accumulators of the whole canvas, with the pyramid and the division written out."""
    canvas = Canvas(np.zeros((*size, 3), np.uint8), (96, 96))
    pyramid = np.minimum(np.arange(1, 97), np.arange(96, 0, -1)) - 0.5
    weights = np.outer(pyramid, pyramid)
    height, width = canvas.canvas
    total, blended = np.zeros((height, width)), np.zeros((2, height, width))
    given = []
    for top in canvas.rows.starts:
        for left in canvas.columns.starts:
            raw = torch.randn(2, 96, 96)
            blended[:, top : top + 96, left : left + 96] += weights * raw.numpy()
            total[top : top + 96, left : left + 96] += weights
            given.append(canvas.add({"task": raw}))
    expected = blended / total
    top, left = max(0, (96 - size[0]) // 2), max(0, (96 - size[1]) // 2)
    expected = expected[:, top : top + size[0], left : left + size[1]]
    found = torch.cat([lines["task"] for lines in given if lines], dim=1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_one_window_is_left_as_it_is_to_the_bit():
    canvas = Canvas(np.zeros((50, 96, 3), np.uint8), (96, 96))
    raw = torch.randn(3, 96, 96)
    assert torch.equal(canvas.add({"task": raw})["task"], raw[:, 23:73])


@pytest.mark.parametrize(
    ("small", "large"), [((5, 7), (11, 20)), ((12, 12), (40, 13)), ((1, 3), (4, 9)), ((9, 1), (9, 5))]
)
def test_maps_are_enlarged_as_torch_does_it(small, large):
    raw = torch.randn(2, *small)
    expected = F.interpolate(raw[None], large, mode="bilinear", align_corners=False)[0]
    for lines in (1, 3, 1000):
        strips = list(enlarged(raw, large, lines))
        torch.testing.assert_close(torch.cat(strips, dim=1), expected)

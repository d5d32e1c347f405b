"""The example of clips: time is used."""

import runpy
from pathlib import Path

import pytest
import torch

CLIPS = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "clips.py"))


def test_a_disc_moves_as_its_label_says():
    images, ways = CLIPS["clips"](64, seed=3)
    assert images.shape == (64, 4, 3, 48, 48)
    ground = images[:, :, :, :3, :3].mean(dim=(3, 4), keepdim=True)
    there = (images - ground).abs().sum(2)
    there = (there - 0.35).clamp(min=0)  # without the noise
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    weight = there.sum(dim=(2, 3)).clamp(min=1e-6)
    centres = torch.stack([(there * y).sum((2, 3)) / weight, (there * x).sum((2, 3)) / weight], dim=-1)
    seen = there.sum(dim=(2, 3)).amin(1) > 20
    moved = (centres[:, -1] - centres[:, 0])[seen]
    turns = torch.tensor(CLIPS["TURNS"]).float()
    assert seen.sum() > 30
    assert (moved @ turns.T).argmax(1).eq(ways[seen]).float().mean() > 0.95


@pytest.mark.slow
def test_with_a_mixing_along_time_the_direction_is_told_and_without_it_is_not():
    found = CLIPS["accuracies"](test=96)
    assert found[True] > 0.8
    assert found[False] < 0.65  # the line that it goes along, from frames in no order: half of the answers

"""Samples on their way from a worker: a quarter of the bytes, and the same numbers to the bit once they are there."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset

from sak.data.images import Images, find_images
from sak.data.loading import load, packed
from sak.data.pascal_context import PascalContext
from sak.data.transforms import finish, pad, to_tensors
from sak.distillation.cached_features import Views
from sak.evaluation.evaluate import to_device
from sak.research.routing.images import GivenImages


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (40 + number, 50, 3), np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.fixture
def sets(archive, pictures):
    """{name: a data set, and whether its images leave the workers in 8 bits}"""
    labelled = {augment: PascalContext(archive, "train", image_size=(96, 90), augment=augment) for augment in (0, 1)}
    images = Images(find_images(pictures), (32, 24))
    return {
        "evaluation": (labelled[0], True),
        "training": (labelled[1], False),  # its colours are distorted
        "distillation": (images, True),
        "views": (Views(images, 2, {}), True),
        "given": (GivenImages([str(pictures)], (64, 60)), True),
        "a part": (Subset(labelled[0], [1, 0]), False),  # of torch's, which knows nothing of packing
    }


NAMES = ("evaluation", "training", "distillation", "views", "given", "a part")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_what_the_samples_hold(sets, name, workers):
    dataset, in_8_bits = sets[name]
    indices = list(range(len(dataset)))
    (loaded,) = load(dataset, [indices], workers)
    assert ("pixels" in loaded, "image" in loaded) == (in_8_bits, not in_8_bits)
    if in_8_bits:
        assert loaded["pixels"].dtype == torch.uint8
    batch = to_device(loaded, torch.device("cpu"))
    assert "pixels" not in batch
    for index in indices:
        sample = dataset[index]
        assert sample["image"].dtype == torch.float32
        for key, value in sample.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(batch[key][index], value), key


def test_finished_pixels_are_those_of_plain_arithmetic():
    """All 256 values, and padding above, below and beside, against the form that pads in floats."""
    sample = {"image": np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)}
    plain = to_tensors(pad(sample, (21, 18)))["image"]
    pixels = torch.zeros(3, 21, 18, dtype=torch.uint8)
    pixels[:, 2:18, 1:17] = torch.from_numpy(sample["image"].transpose(2, 0, 1).copy())
    assert torch.equal(finish({"pixels": pixels, "size": (16, 16)})["image"], plain)
    sizes = [torch.tensor([16, 21]), torch.tensor([16, 18])]  # of a batch, of which the second fills the canvas
    batch = finish({"pixels": torch.stack([pixels, pixels]), "size": sizes})["image"]
    assert torch.equal(batch[0], plain)
    assert torch.equal(batch[1], pixels.float() / 255)


def test_finishing_leaves_its_input_and_what_is_finished(sets):
    dataset, _ = sets["evaluation"]
    raw = packed(dataset, 0)
    finish(raw)
    assert raw["pixels"].dtype == torch.uint8
    assert "image" not in raw
    done = dataset[0]
    assert finish(done) is done

"""What the benchmarks of side adaptation measure, on small backbones."""

import importlib
import math
from pathlib import Path

import pytest
import timm
import torch

TOOLS = Path(__file__).parents[2] / "tools"
OPTIONS = {"embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 4}


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def test_memory_is_counted(benchmarks):
    growth = benchmarks("adaptation")
    shape = growth.Shape(depth=2, width=64, side=3)
    losa, cached, full = (growth.counted(shape, method) for method in growth.METHODS)
    weights = sum(parameter.numel() for parameter in growth.backbone(shape).parameters())
    assert full > 16 * weights  # weight, gradient, two moments, four bytes each
    assert 4 * weights < losa < 0.5 * full
    assert cached < 4 * weights
    assert growth.counted(shape._replace(depth=4), growth.FULL) > 1.6 * full
    assert growth.timed(shape, growth.CACHED) > 0
    found = {shape: [(1.0, 2**20)] * 3 for _, shapes in growth.AXES.values() for shape in shapes}
    assert len(growth.figure(found).axes) == 6


def test_a_giant_in_small(benchmarks, monkeypatch, tmp_path):
    giants = benchmarks("giants")
    monkeypatch.setattr(giants, "GIANTS", {"small": OPTIONS})
    step = giants.measured("small", tmp_path)
    vit = timm.create_model(giants.MODEL, num_classes=0, **OPTIONS)
    assert step.parameters == sum(math.prod(weight.shape) for weight in vit.parameters())
    assert step.file > 2 * step.parameters - 200  # bfloat16; the norm behind the blocks is in it too
    assert step.learned == 2 * (2 * 32 + 2 * 8 * 32 + 2 * 2 * 8 * 16)  # norm, channels, rows and columns of 16 tokens
    assert min(step.forward, step.rest, step.peak) > 0
    (first, *_) = giants.written("small", tmp_path)
    assert first.name == "blocks.0.safetensors"


def test_giants_have_the_size_that_they_are_named_for(benchmarks):
    giants = benchmarks("giants")
    sizes = {
        name: sum(weight.numel() for weight in giants.sketch(giants.MODEL, options).parameters())
        for name, options in giants.GIANTS.items()
    }
    assert sizes["ViT-g"] == pytest.approx(1.01e9, rel=0.01)
    assert sizes["ViT-e"] == pytest.approx(3.8e9, rel=0.03)
    assert sizes["ViT-e"] * giants.BYTES["all in bfloat16"] > 24e9
    assert torch.get_default_dtype() == torch.float32

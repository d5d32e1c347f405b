"""What `tools/benchmark.py gpu` measures, on a small student and a CPU; on a GPU, that it is right there too."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from sak.errors import UserError

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    yield importlib.import_module("benchmarks.gpu")
    for name in [name for name in sys.modules if name.startswith("benchmarks.")]:
        del sys.modules[name]


@pytest.fixture
def small(gpu, monkeypatch):
    """A student of two blocks, and two steps."""
    paper = sys.modules["benchmarks.paper"]
    monkeypatch.setattr(paper, "STEM", "vit_tiny_patch16_224")
    monkeypatch.setattr(paper, "WIDTH", 192)
    monkeypatch.setattr(gpu, "STEPS", 1)
    monkeypatch.setattr(gpu, "WARM_UP", 1)
    return gpu


@pytest.mark.parametrize("how", ["", "ddp", "fsdp"])
def test_a_step_is_measured(small, how):
    found = small.measured(small.Form("a step", wrapped=how), torch.device("cpu"), 32, 2)
    assert found.images > 0
    assert 2e8 < found.operations / found.images < 3e8  # twice three times the weights, of which most see four tokens


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(gpu):
    with pytest.raises(UserError, match="this machine has none"):
        gpu.limits()

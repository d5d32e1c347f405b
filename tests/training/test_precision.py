"""`precision: auto`: what it stands for, and that a run keeps it."""

import pytest
import torch

from sak import config
from sak.evaluation import distributed
from sak.evaluation.distributed import bf16_is_fast, build_accelerator, products_a_second, settled
from sak.training.train import train

FAST, SLOW = {torch.float32: 100.0, torch.bfloat16: 190.0}, {torch.float32: 100.0, torch.bfloat16: 110.0}


@pytest.fixture
def machine(monkeypatch):
    """Makes this machine one with other rates of products."""
    return lambda rates: monkeypatch.setattr(distributed, "products_a_second", rates.__getitem__)


def test_what_runs_in_one_process_may_have_several_precisions():
    for precision, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp32", torch.float32)):
        accelerator = build_accelerator(precision)
        with accelerator.autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == kind


@pytest.mark.parametrize(("rates", "expected"), [(FAST, "bf16"), (SLOW, "fp32")])
def test_auto_is_bf16_where_that_is_faster_and_says_so(tiny, machine, capsys, rates, expected):
    machine(rates)
    asked = config.load(tiny, ["precision=auto"])
    assert settled(asked).precision == expected
    assert asked.precision == "auto"  # what was asked is left as it is
    assert f"computes in {expected}: bf16 is" in capsys.readouterr().out


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_what_is_said_is_not_asked_of_the_machine(tiny, monkeypatch, precision):
    monkeypatch.setattr(distributed, "bf16_is_fast", lambda device: pytest.fail("the machine was asked"))
    assert settled(config.load(tiny, [f"precision={precision}"])).precision == precision


def test_a_run_keeps_what_it_began_with_wherever_it_goes_on(tiny, machine):
    machine(FAST)
    short = ["precision=auto", "stages.multitask.steps=0"]
    run = train(config.load(tiny, short))
    assert config.load(run.config_file).precision == "bf16"
    run.metrics.unlink(missing_ok=True)
    machine(SLOW)
    assert train(config.load(tiny, short)).finished
    assert config.load(run.config_file).precision == "bf16"


def test_the_rates_are_measured():
    for dtype in (torch.float32, torch.bfloat16):
        assert products_a_second(dtype) > 0
    assert bf16_is_fast(torch.device("meta")) is False  # of which nothing is known

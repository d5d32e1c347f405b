import pytest
import torch

from sak.training.loss_record import GRADIENT, LossRecord


def terms(value):
    return {"total": torch.tensor(value + 1), "task/edge": torch.tensor(value)}


def test_reads_the_newest_step():
    record = LossRecord("multitask")
    for step in (1, 2, 3):
        record.add(step, terms(float(step)))
    assert record.read() == {"total": 4.0, "task/edge": 3.0}


def test_names_the_first_step_and_term_that_is_not_finite():
    record = LossRecord("multitask")
    for step, value in enumerate([1.0, float("inf"), float("nan")], start=1):
        record.add(step, terms(value))
    with pytest.raises(FloatingPointError, match="task/edge is inf at step 2 of the stage multitask"):
        record.check()


def test_checks_every_step_once():
    record = LossRecord("distill")
    assert record.check() == []
    record.add(1, terms(1.0))
    assert record.check() == [[2.0, 1.0]]
    assert record.check() == []
    record.add(2, terms(2.0))
    record.add(3, terms(3.0))
    assert record.check() == [[3.0, 2.0], [4.0, 3.0]]


def test_a_gradient_is_named_as_such():
    record = LossRecord("distill", advice="lower the rate")
    record.add(7, {**terms(1.0), GRADIENT: torch.tensor(float("nan"))})
    with pytest.raises(
        FloatingPointError, match=r"^the gradient's norm is nan at step 7 of .* distill; lower the rate$"
    ):
        record.check()


def test_processes_average_in_full_precision():
    record = LossRecord("distill", mean=lambda values: (values + values) / 2)
    record.add(1, {"total": torch.tensor(40_000.0, dtype=torch.float16)})
    assert record.read() == {"total": 40_000.0}

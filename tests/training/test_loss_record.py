import pytest
import torch

from sak.training.loss_record import LossRecord


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
    record.check()
    record.add(1, terms(1.0))
    record.check()
    record.check()
    record.add(2, terms(2.0))
    assert record.read()["task/edge"] == 2.0

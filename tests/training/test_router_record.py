import pytest
import torch

from sak.student import StudentOutput
from sak.training.router_record import RoutingRecord


class Student:
    sources = ("stem", "clip")
    levels = (0, 2)


def output(*first_weights):
    """Of images that give the stem these weights, for two tasks at two levels."""
    weights = torch.tensor([[weight, 1 - weight] for weight in first_weights], requires_grad=True)
    return StudentOutput({}, {}, {"semseg": [weights, weights.square()], "edge": [weights, weights]})


def test_the_mean_is_over_the_images_of_the_newest_step():
    record = RoutingRecord(Student())
    record.add(output(0.9, 0.7))
    record.new_step()
    record.add(output(0.2, 0.4))
    record.add(output(0.6, 0.8))
    named = record.named(record.mean)
    assert named.keys() == {f"{t}/block{b}/{s}" for t in ("semseg", "edge") for b in (0, 2) for s in Student.sources}
    assert named["edge/block0/stem"] == pytest.approx(0.5)
    assert named["semseg/block2/stem"] == pytest.approx((0.04 + 0.16 + 0.36 + 0.64) / 4)
    assert named["semseg/block0/clip"] == pytest.approx(0.5)
    assert not record.mean.requires_grad


def test_a_student_that_routes_nothing_has_no_means():
    record = RoutingRecord(Student())
    record.add(StudentOutput({}, {}, {}))
    assert record.mean is None

"""The short ways that the metrics' updates take, against the long ones."""

import pytest
import torch

from sak.metrics import exact_sum as sums
from sak.metrics.angular_error import AngularError
from sak.metrics.max_f import thresholds_reached
from sak.metrics.miou import MeanIoU


def test_thresholds_reached_equals_a_search():
    thresholds = torch.arange(1, 20) / 20
    beside = torch.cat([torch.nextafter(thresholds, torch.tensor(side)) for side in (0.0, 1.0)])
    values = torch.cat([thresholds, beside, torch.rand(100_000), torch.tensor([0.0, 1.0])])
    expected = torch.bucketize(values, thresholds, right=True)
    assert torch.equal(thresholds_reached(values).long(), expected)


def test_angles_equal_the_published_formula():
    p, g = (torch.nn.functional.normalize(torch.randn(2, 3, 30, 40, dtype=torch.float64), dim=1) for _ in range(2))
    published = 2 * torch.atan2((p - g).norm(dim=1), (p + g).norm(dim=1))
    metric = AngularError()
    metric.update((3 * p).float(), g.float())
    assert float(metric.compute()) == pytest.approx(float(published.rad2deg().mean()), rel=1e-6)


def test_a_null_vector_is_no_right_answer():
    metric = AngularError()
    metric.update(torch.zeros(1, 3, 2, 2), torch.nn.functional.normalize(torch.randn(1, 3, 2, 2), dim=1))
    assert float(metric.compute()) == pytest.approx(90)


def test_targets_beyond_the_classes_are_refused():
    with pytest.raises(ValueError, match="beyond the 5 classes"):
        MeanIoU(5).update(torch.zeros(1, 2, 2, dtype=torch.int64), torch.full((1, 2, 2), 7))


def test_both_ways_of_summing_yield_the_same_number():
    values = 180 * torch.rand(3000, dtype=torch.float64) - 20
    at_once = sums.exact_sum(values)
    by_parts = sums.exact_sum(values[:, None], dim=0)[:, 0]  # keeps whole units and fractions apart
    assert sums.from_exact(at_once) == sums.from_exact(by_parts)
    halves = sums.exact_sum(values[:1234]) + sums.exact_sum(values[1234:])
    assert sums.from_exact(halves) == sums.from_exact(at_once)
    assert float(sums.from_exact(at_once)) == pytest.approx(float(values.sum()), abs=1e-6)
    assert sums.exact_sum(values[:0]).tolist() == [0, 0]

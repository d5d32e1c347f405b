import math

import pytest
import torch

from sak.metrics.angular_error import AngularError
from sak.metrics.exact_sum import exact_sum, from_exact


def test_any_order_and_any_cut_give_the_same_bits():
    values = 10 ** (8 * torch.rand(10_000, dtype=torch.float64) - 4) * torch.randn(10_000, dtype=torch.float64).sign()
    whole = exact_sum(values)
    for _ in range(5):
        shuffled = values[torch.randperm(len(values))]
        parts = sum(exact_sum(part) for part in shuffled.split(1234))
        assert float(from_exact(parts)) == float(from_exact(whole))
    assert float(from_exact(whole)) == pytest.approx(math.fsum(values.tolist()), abs=1e-5)
    # What this is for: sums of floating-point numbers do depend on it.
    assert len({float(values[torch.randperm(len(values))].sum()) for _ in range(20)}) > 1


def test_along_one_axis():
    values = torch.rand(7, 5)
    torch.testing.assert_close(from_exact(exact_sum(values, dim=0)), values.double().sum(0), rtol=0, atol=1e-8)
    assert exact_sum(values[:0], dim=0).tolist() == [[0] * 5] * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [None, 0])
def test_of_any_type_in_full_precision(dtype, dim):
    values = torch.tensor([3.5, -(2.0**-30), 2.0**14, -1.25], dtype=dtype)
    assert float(from_exact(exact_sum(values, dim))) == float(values.double().sum())


def test_what_is_too_much_for_one_number_is_kept_in_two():
    assert exact_sum(torch.tensor([1.5, 0.25])).tolist() == [1, 3 * 2**30]
    values = torch.tensor([[2.0**33 + 0.5, -0.25], [-(2.0**32), 2.0**33 - 0.125]], dtype=torch.float64)
    assert float(from_exact(exact_sum(values))) == 2.0**33 + 2.0**32 + 0.125
    assert from_exact(exact_sum(values, dim=1)).tolist() == [2.0**33 + 0.25, 2.0**32 - 0.125]
    assert from_exact(exact_sum(values, dim=-2)).tolist() == [2.0**32 + 0.5, 2.0**33 - 0.375]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 2e10])
def test_what_is_no_number_is_refused(bad):
    with pytest.raises(FloatingPointError, match="not a number"):
        exact_sum(torch.tensor([1.0, bad]))
    normals = torch.tensor([0.0, bad if math.isnan(bad) else math.nan, 1.0]).view(1, 3, 1, 1)
    with pytest.raises(FloatingPointError):
        AngularError().update(normals, torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1))

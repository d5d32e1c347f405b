"""Sums of real numbers that do not depend on the order of summation, so that they may be shared over processes."""

import torch

FRACTION_BITS = 32
FRACTION_MASK = 2**FRACTION_BITS - 1
LIMIT = 2.0**34  # sums over 10⁹ such values still fit into 64 bits


def exact_sum(values: torch.Tensor, dim: int | None = None) -> torch.Tensor:
    """Sum over `dim` (all without it) as int64 (2, ...): whole units, and 2⁻³² units. See `from_exact`.

    Each value is rounded to a multiple of 2⁻³²; what is added from there on are integers, whose sum, unlike that of
    floating-point numbers, is the same in any order, batch and number of processes.

    Raises:
        FloatingPointError: a value is not finite, or not below 2³⁴ in magnitude.
    """
    values = values.double()
    largest = float(values.abs().max()) if values.numel() else 0.0
    if not largest < LIMIT:  # NaN is not below either
        raise FloatingPointError("a prediction is infinite, not a number, or absurdly far from its label")
    if dim is None and largest * values.numel() < 2**30:  # the sum of all fits into 64 bits: far fewer passes
        total = (values * 2**FRACTION_BITS).round_().long().sum()
        return torch.stack([total >> FRACTION_BITS, total & FRACTION_MASK])
    whole = values.floor()
    parts = torch.stack([whole, ((values - whole) * 2**FRACTION_BITS).round()]).long()
    return parts.flatten(1).sum(1) if dim is None else parts.sum(dim % values.dim() + 1)


def from_exact(parts: torch.Tensor) -> torch.Tensor:
    """The sum (...) in float64, from (2, ...)."""
    # Carried over first: the same sum may come in different parts, but is to be one number.
    whole, fraction = parts[0] + (parts[1] >> FRACTION_BITS), parts[1] & FRACTION_MASK
    return whole.double() + fraction.double() / 2**FRACTION_BITS

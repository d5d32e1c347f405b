"""What few runs tell of the mean of many: Student's t."""

import math
import statistics
from collections.abc import Sequence

from scipy import stats

CONFIDENCE = 0.95
BETTER, WORSE, NOTHING, UNKNOWN = "better", "worse", "none", "–"


def half_width(values: Sequence[float]) -> float | None:
    """Half of the 95 % confidence interval of the mean of independent values; None of fewer than two."""
    if len(values) < 2:
        return None
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    return float(quantile * statistics.stdev(values) / math.sqrt(len(values)))


def spread(values: Sequence[float]) -> dict | None:
    """{"mean", "std" (n - 1), "ci95": `half_width`, "values"}; None of no values."""
    if not values:
        return None
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": std, "ci95": half_width(values), "values": list(values)}


def plus_minus(values: Sequence[float], form: str) -> str:
    """For people: the mean ± `half_width`, as ``form`` says, without a minus before a zero."""
    if not values:
        return UNKNOWN
    half, mean = half_width(values), f"{statistics.fmean(values):{form}}"
    return (mean.replace("-", "+") if float(mean) == 0 else mean) + (
        "" if half is None else f" ± {half:{form.lstrip('+')}}"
    )


def finding(gains: Sequence[float]) -> str:
    """Whether gains, of which more is better, are one: not where the interval of their mean holds 0."""
    half = half_width(gains)
    if half is None:
        return UNKNOWN
    mean = statistics.fmean(gains)
    if abs(mean) <= half:
        return NOTHING
    return BETTER if mean > 0 else WORSE

"""Boundaries against SEISM's own code, whose counts on synthetic maps are stored beside the maps."""

from pathlib import Path

import numpy as np
import pytest

from sak.metrics.boundary import boundary_map, evaluate
from sak.metrics.boundary.evaluation import PROTOCOLS
from sak.metrics.boundary.matching import match
from sak.metrics.boundary.nms import suppress_non_maxima
from sak.metrics.boundary.thinning import thin

EDGE = Path(__file__).parents[1] / "fixtures/edge"
CASES = {"a_plain_single_gt": None, "d_nms_fork_pascal": "sak", "f_nms_upstream_pascal": "invpt"}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    with np.load(EDGE / f"{request.param}.npz", allow_pickle=False) as file:
        return CASES[request.param], dict(file)


def images(case):
    return range(int(case["n_images"]))


def test_truth_is_drawn_exactly(case):
    _, case = case
    for i in images(case):
        assert (boundary_map(case[f"gtsrc_{i}"][0]) == case[f"gt_{i}"][0].astype(bool)).all()


def test_matching_is_exact_on_the_reference_maps(case):
    nms, case = case
    for i in images(case):
        values = case[f"nms_{i}" if nms else f"pred_{i}"]
        values = values / 255.0 if values.dtype == np.uint8 else values
        thresholds = case["thresholds"].astype(values.dtype)[:, None, None]
        masks = thin(values > thresholds if str(case["compare"]) == "gt" else values >= thresholds)
        truth = case[f"gt_{i}"][0].astype(bool)
        assert (masks.sum((1, 2)) == case["sumP"][i]).all()
        assert (truth.sum() == case["sumR"][i]).all()
        assert (match(masks, truth, case["maxDist"] * np.hypot(*truth.shape)) == case["maxcard"][i]).all()


@pytest.mark.parametrize("case", ["d_nms_fork_pascal", "f_nms_upstream_pascal"], indirect=True)
def test_suppression(case):
    nms, case = case
    protocol = PROTOCOLS[nms]
    for i in images(case):
        ours = suppress_non_maxima(case[f"pred_{i}"].astype(np.float32) / 255, protocol.reach, protocol.blur)
        expected = case[f"nms_{i}"]
        if protocol.as_uint8:
            ours = np.floor(255 * ours + np.float32(0.5)).astype(np.uint8)
        kept = (expected > 0) & (ours > 0)
        assert ((ours > 0) != (expected > 0)).sum() <= 0.005 * (expected > 0).sum()
        np.testing.assert_allclose(ours[kept].astype(float), expected[kept], atol=1 if protocol.as_uint8 else 1e-6)


def test_whole_protocol(case):
    nms, case = case
    result = evaluate(
        [case[f"pred_{i}"] for i in images(case)],
        [case[f"gt_{i}"][0].astype(bool) for i in images(case)],
        float(case["maxDist"]),
        nms=nms,
    )
    assert result.protocol == (nms or "none")
    np.testing.assert_array_equal(result.thresholds, case["thresholds"])
    if nms is None:  # nothing is computed in floating point before the threshold: all must be exact
        np.testing.assert_array_equal(result.count, case["maxcard"])
    assert result.ods_f == pytest.approx(float(case["maxcard_ods_f"]), abs=1e-9 if nms is None else 5e-4)
    assert result.ois_f == pytest.approx(float(case["maxcard_ois_f"]), abs=1e-9 if nms is None else 5e-4)
    assert result.ap == pytest.approx(float(case["maxcard_ap"]), abs=0.01)
    above_the_reference = result.ods_f - case["ods_f_runs"]  # whose random matcher misses a few pairs
    assert above_the_reference.min() >= -5e-4
    assert above_the_reference.max() <= 2.5e-3

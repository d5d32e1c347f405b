"""Parts of the boundary evaluation against other implementations, its definitions, and its edge cases."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from skimage.morphology import thin as skimage_thin

from sak.errors import UserError
from sak.metrics.boundary import BoundaryF, Result, boundary_map, evaluate
from sak.metrics.boundary.evaluation import precision_recall
from sak.metrics.boundary.matching import match
from sak.metrics.boundary.nms import interpolate, orientation, suppress_non_maxima, triangle_filter
from sak.metrics.boundary.thinning import thin


def maximum_by_scipy(predicted, truth, radius):
    ours, theirs = np.argwhere(predicted), np.argwhere(truth)
    near = ((ours[:, None] - theirs) ** 2).sum(-1) <= radius**2
    return (maximum_bipartite_matching(csr_matrix(near), perm_type="column") >= 0).sum() if near.size else 0


@pytest.mark.parametrize("radius", [0.5, 1, 1.5, 2.9, 4.69])
@pytest.mark.parametrize("density", [0.02, 0.1, 0.3])
def test_matching_is_maximal(radius, density):
    rng = np.random.default_rng(int(100 * radius + 1000 * density))
    for shape in ((9, 31), (24, 24)):
        truth = rng.random(shape) < density
        predicted = rng.random((6, *shape)) < np.linspace(0, 2 * density, 6)[:, None, None]
        expected = [maximum_by_scipy(mask, truth, radius) for mask in predicted]
        np.testing.assert_array_equal(match(predicted, truth, radius), expected)


@pytest.mark.parametrize("share", [0.02, 0.05])
def test_matching_of_few_with_many(share):
    """Where far more of one side than of the other are left over, in any map."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        few, many = rng.random((2, 20, 30)) < share, rng.random((2, 20, 30)) < 0.4
        for predicted, truth in ((few, many[0]), (many, few[0])):
            expected = [maximum_by_scipy(mask, truth, 2.5) for mask in predicted]
            np.testing.assert_array_equal(match(predicted, truth, 2.5), expected)


def test_matching_needs_augmenting_paths():
    # Nearest pairs first takes (1, 1), after which 0 and 3 are out of reach of each other.
    predicted = np.array([[[1, 1, 0, 0, 0]]], dtype=bool)
    truth = np.array([[0, 1, 0, 1, 0]], dtype=bool)
    np.testing.assert_array_equal(match(predicted, truth, 2), [2])
    np.testing.assert_array_equal(match(truth[None], predicted[0], 2), [2])


def test_matching_along_a_long_chain():
    # Every true pixel has to move by one to make room for the last.
    predicted, truth = np.zeros((1, 1, 60), dtype=bool), np.zeros((1, 60), dtype=bool)
    predicted[..., 0:50] = True
    truth[:, 1:51] = True
    np.testing.assert_array_equal(match(predicted, truth, 1), [50])
    np.testing.assert_array_equal(match(truth[None], predicted[0], 1), [50])


def test_matching_of_nothing():
    some, none = np.ones((2, 4, 5), dtype=bool), np.zeros((2, 4, 5), dtype=bool)
    for predicted, truth in ((some, none), (none, some), (none, none)):
        np.testing.assert_array_equal(match(predicted, truth[0], 2), [0, 0])


def test_thinning_equals_skimage():
    rng = np.random.default_rng(0)
    masks = np.stack([rng.random((40, 50)) < share for share in (0, 0.2, 0.5, 0.7, 0.9, 1)])
    solid = np.zeros((1, 40, 50), dtype=bool)
    solid[0, 5:30, 8:47] = True
    masks = np.concatenate([masks, solid])
    before = masks.copy()
    thinned = thin(masks)
    np.testing.assert_array_equal(masks, before)
    for ours, mask in zip(thinned, masks, strict=True):
        np.testing.assert_array_equal(ours, skimage_thin(mask))
        np.testing.assert_array_equal(ours, thin(mask))
        np.testing.assert_array_equal(ours, thin(ours))


def test_thinning_of_single_masks_equals_skimage():
    """A pass that finds nothing is not yet the end, and among many masks one always finds something."""
    rng = np.random.default_rng(0)
    for mask in rng.random((300, 8, 8)) < 0.7:
        np.testing.assert_array_equal(thin(mask), skimage_thin(mask))


def test_boundary_map_by_hand():
    labels = np.array([[3, 3, 7, 7], [3, 3, 7, 7], [3, 3, 3, 3]])
    # Before thinning: whatever differs from its neighbour to the right, below, or below to the right.
    np.testing.assert_array_equal(
        boundary_map(labels), thin(np.array([[0, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]], dtype=bool))
    )
    assert not boundary_map(np.full((5, 6), 255)).any()


def test_triangle_filter():
    impulse = np.zeros((9, 9), dtype=np.float32)
    impulse[4, 4] = 1
    weights = np.array([1, 2, 1]) / 4
    np.testing.assert_allclose(triangle_filter(impulse, 1)[3:6, 3:6], np.outer(weights, weights))
    np.testing.assert_allclose(triangle_filter(np.ones((5, 6), dtype=np.float32), 4), 1, rtol=1e-6)
    corner = np.zeros((4, 1), dtype=np.float32)
    corner[0] = 1
    np.testing.assert_allclose(triangle_filter(corner, 1)[:, 0], [0.75, 0.25, 0, 0])


# Not 90: the reference's formula takes a ridge along x that is exactly straight for one along y.
@pytest.mark.parametrize("degrees", [0, 20, 45, 70, 88, 110, 135, 160])
@pytest.mark.parametrize(("reach", "blur"), [(4, 1), (1, 0)])
def test_suppression_keeps_the_ridge(degrees, reach, blur):
    y, x = np.mgrid[-30:31, -30:31]
    distance = x * np.cos(np.radians(degrees)) + y * np.sin(np.radians(degrees))
    ridges = suppress_non_maxima(np.exp(-(distance**2) / 18).astype(np.float32), reach, blur)
    inner = np.s_[5:-5, 5:-5]
    assert (ridges[inner][np.abs(distance[inner]) < 0.1] > 0.8).all()
    assert ridges[inner][np.abs(distance[inner]) > 1.5].max() < 0.01


def test_suppression_fades_out_at_the_borders():
    x = np.arange(-20, 21)
    ridge = suppress_non_maxima(np.tile(np.exp(-(x**2) / 18), (30, 1)).astype(np.float32), 4, 1)[:, 20]
    fade = np.concatenate([np.arange(5) / 5, np.ones(20), np.arange(4, -1, -1) / 5])
    np.testing.assert_allclose(ridge, ridge[15] * fade, rtol=1e-5)


def test_what_is_flat_is_kept_but_for_the_borders():
    kept = suppress_non_maxima(np.full((30, 41), 0.5, dtype=np.float32), 4, 1)
    rows, columns = (np.concatenate([np.arange(5) / 5, np.ones(n - 10), np.arange(4, -1, -1) / 5]) for n in (30, 41))
    np.testing.assert_allclose(kept, 0.5 * np.outer(rows, columns), rtol=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_orientation_is_that_of_the_published_formula(sign):
    """Of the second derivatives, which are 4, 3 and 2 on this surface, and which smoothing leaves as they are."""
    y, x = np.mgrid[-20:21, -20:21].astype(np.float32)
    angle = orientation(2 * x**2 + 3 * sign * x * y + y**2)[12:-12, 12:-12]
    np.testing.assert_allclose(angle, np.mod(np.arctan(-sign * 2 / 4), np.pi), rtol=1e-3)


def test_interpolation_between_pixels_and_beyond_them():
    image = np.random.default_rng(0).random((4, 6)).astype(np.float32)
    y, x = np.random.default_rng(1).uniform(-2, 8, (2, 500)).astype(np.float32)
    inside = np.clip(y, 0, 3), np.clip(x, 0, 5)
    np.testing.assert_allclose(interpolate(image, y, x), map_coordinates(image, inside, order=1), atol=2e-3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (6, 1), (2, 3), (4, 40)])
@pytest.mark.parametrize("nms", ["sak", "invpt", None])
def test_tiny_images(shape, nms):
    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 256, shape, dtype=np.uint8), rng.random(shape) < 0.5
    result = evaluate([prediction], [truth], 0.0075, nms=nms)
    assert (result.count <= np.minimum(result.sum_r, result.sum_p)).all()
    assert 0 <= result.ods_f <= 1


def drawn(seed=0, shape=(60, 80)):
    """A label map's boundaries, and a blurred prediction of them with clutter: uint8 map, bool map."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.repeat(rng.integers(0, 5, (4, 4)), shape[0] // 4, 0), shape[1] // 4, 1)
    truth = boundary_map(labels)
    noise = triangle_filter(rng.random(shape).astype(np.float32), 2)
    prediction = 0.8 * triangle_filter(np.roll(truth, 1, axis=1).astype(np.float32), 1) + 0.3 * noise
    return (255 * np.clip(prediction, 0, 1)).astype(np.uint8), truth


def test_perfect_predictions():
    truths = [drawn(seed)[1] for seed in range(3)]
    result = evaluate([255 * truth.astype(np.uint8) for truth in truths], truths, 0.0075, nms=None)
    assert result.ods_f == result.ois_f == 1
    assert result.protocol == "none"
    assert (result.count == result.sum_r).all()


def test_measures_from_counts():
    counts = {
        "count": np.array([[6, 4, 0], [2, 2, 1]]),
        "sum_r": np.array([[8, 8, 8], [4, 4, 4]]),
        "sum_p": np.array([[12, 5, 0], [10, 2, 1]]),
    }
    result = Result(thresholds=np.array([0.2, 0.5, 0.8]), protocol="none", **counts)
    # Pooled: R = 8/12, 6/12, 1/12 and P = 8/22, 6/7, 1.
    assert result.ods_f == pytest.approx(2 * 6 / (12 + 7))
    # The first image is best at the second threshold (8/13), the second as well (4/6).
    assert result.ois_f == pytest.approx(2 * 6 / (12 + 7))
    recall = np.arange(101) / 100
    inside = recall[(recall >= 1 / 12) & (recall <= 8 / 12)]
    curve = np.interp(inside, [1 / 12, 6 / 12, 8 / 12], [1, 6 / 7, 8 / 22])
    assert result.ap == pytest.approx(curve.sum() / 100)


def test_precision_and_recall_of_nothing():
    # A half of what is there; nothing predicted; nothing true; neither.
    precision, recall = precision_recall(np.array([[2, 0, 0, 0], [8, 8, 0, 0], [4, 0, 5, 0]]))
    assert precision.tolist() == [0.5, 1, 0, 1]
    assert recall.tolist() == [0.25, 0, 1, 0]


def test_nothing_predicted_or_nothing_true():
    empty, (prediction, truth) = np.zeros((60, 80), dtype=bool), drawn()
    for predictions, truths in (
        ([empty.astype(np.uint8)], [truth]),
        ([prediction], [empty]),
        ([empty.astype(np.uint8)], [empty]),
        ([], []),
    ):
        result = evaluate(predictions, truths, 0.0075)
        assert result.ods_f == result.ois_f == 0
        assert result.count.shape == (len(truths), 99)
        assert result.count.sum() == 0
        assert 0 <= result.ap <= 1


def test_protocols_have_their_own_thresholds():
    prediction, truth = drawn()
    sak, invpt = (evaluate([prediction], [truth], 0.0075, nms=nms) for nms in ("sak", "invpt"))
    assert (sak.protocol, len(sak.thresholds)) == ("sak", 99)
    assert (invpt.protocol, len(invpt.thresholds)) == ("invpt", 101)
    assert sak.ods_f != invpt.ods_f
    chosen = evaluate([prediction], [truth], 0.0075, thresholds=[0.3, 0.6])
    np.testing.assert_array_equal(chosen.count, sak.count[:, [29, 59]])


def test_comparison_with_thresholds():
    prediction = np.full((5, 5), 51, dtype=np.uint8)  # 51 / 255 = 0.2
    counts = {
        compare: evaluate([prediction], [prediction > 0], 0.0075, None, False, [0.2], compare).sum_p[0, 0]
        for compare in ("ge", "gt", None)
    }
    assert counts == {"ge": 25, "gt": 0, None: 25}


def test_thinning_can_be_left_out():
    prediction, truth = np.full((20, 20), 255, dtype=np.uint8), np.eye(20, dtype=bool)
    assert evaluate([prediction], [truth], 0.0075, None, thin=False).sum_p[0, 0] == 400
    assert evaluate([prediction], [truth], 0.0075, None, thin=True).sum_p[0, 0] < 40


def test_processes_share_the_images():
    pairs = [drawn(seed) for seed in range(5)]
    alone, shared = (evaluate(*zip(*pairs, strict=True), 0.0075, workers=workers) for workers in (1, 2))
    np.testing.assert_array_equal(alone.counts, shared.counts)


def test_a_bar_is_shown_to_who_asks(capsys):
    prediction, truth = drawn(shape=(12, 16))
    evaluate([prediction], [truth], 0.02)
    assert capsys.readouterr().err == ""
    evaluate([prediction], [truth], 0.02, progress=True)
    assert "boundaries: 100%" in capsys.readouterr().err


def test_mistakes_are_named():
    prediction, truth = drawn()
    with pytest.raises(UserError, match="no boundary protocol 'bsds': known are sak, invpt"):
        evaluate([prediction], [truth], 0.0075, nms="bsds")
    with pytest.raises(UserError, match="no comparison '>'"):
        evaluate([prediction], [truth], 0.0075, compare=">")
    with pytest.raises(UserError, match="uint8 maps"):
        evaluate([prediction / 255], [truth], 0.0075)
    with pytest.raises(UserError, match="truth's shape"):
        evaluate([prediction[1:]], [truth], 0.0075)


def test_metric_equals_the_evaluation_of_the_cropped_maps():
    shapes = [(40, 60), (48, 44)]
    pairs = [drawn(seed, shape) for seed, shape in enumerate(shapes)]
    probability = torch.rand(2, 1, 50, 64)
    boundaries = torch.full((2, 1, 50, 64), 255, dtype=torch.uint8)
    for i, ((prediction, truth), (height, width)) in enumerate(zip(pairs, shapes, strict=True)):
        window = np.s_[i, 0, 2 : 2 + height, 1 : 1 + width]
        probability[window] = (torch.from_numpy(prediction).float() + 0.5) / 255
        boundaries[window] = torch.from_numpy(truth.astype(np.uint8))
    for nms in ("sak", "invpt"):
        metric = BoundaryF(0.02, nms)
        metric.update(probability, boundaries)
        result = evaluate(*zip(*pairs, strict=True), 0.02, nms)
        expected = {name: 100 * getattr(result, name) for name in ("ods_f", "ois_f", "ap")}
        assert {name: float(value) for name, value in metric.compute().items()} == pytest.approx(expected, rel=1e-6)
        assert 0 < expected["ods_f"] < 100

"""Each shape's intersections and normals against closed forms and against its own definition."""

import numpy as np
import pytest

from sak.data.mini.primitives import Annulus, Capsule, Ellipsoid, Frustum, Plane, box, rotation
from sak.data.mini.texture import solid

GREY = solid((0.5, 0.5, 0.5))


def cast(shape, origin, *directions):
    return shape.intersect(np.float32(origin), np.float32(directions).T)


def test_sphere_along_and_beside_the_axis():
    sphere = Ellipsoid((0, 5, 0), 1.0, GREY)
    t = cast(sphere, (0, 0, 0), (0, 1, 0), (0, 2, 0), (0, -1, 0), (1, 1, 0))
    np.testing.assert_allclose(t[:2], [4.0, 2.0], rtol=1e-6)
    assert np.isinf(t[2:]).all()


def test_ellipsoid_half_axes():
    t = cast(Ellipsoid((0, 0, 0), (1, 2, 3), GREY), (0, -10, 0), (0, 1, 0))
    np.testing.assert_allclose(t, 8, rtol=1e-6)


def test_plane():
    t = cast(Plane((0, 0, 0), GREY), (0, 0, 2), (0, 1, -1), (0, 1, 1), (0, 1, 0))
    np.testing.assert_allclose(t[0], 2, rtol=1e-6)
    assert np.isinf(t[1:]).all()


def test_box_and_its_taper():
    cube = box((0, 0, 1), (2, 2, 2), GREY)
    np.testing.assert_allclose(cast(cube, (0, -5, 1), (0, 1, 0)), 4, rtol=1e-6)
    roof = box((0, 0, 1), (2, 2, 2), GREY, taper=(0, 1))  # the sides meet above the middle at z = 2
    np.testing.assert_allclose(cast(roof, (0, -5, 1), (0, 1, 0)), 4.5, rtol=1e-5)
    turned = box((0, 0, 0), (2, 2, 2), GREY, axes=rotation(2, np.pi / 4))
    np.testing.assert_allclose(cast(turned, (0, -5, 0), (0, 1, 0)), 5 - np.sqrt(2), rtol=1e-5)


def test_capsule_side_and_ends():
    capsule = Capsule((0, 0, -1), (0, 0, 1), 0.5, GREY)
    np.testing.assert_allclose(cast(capsule, (0, -3, 0.5), (0, 1, 0)), 2.5, rtol=1e-6)
    np.testing.assert_allclose(cast(capsule, (0, 0, 5), (0, 0, -1)), 3.5, rtol=1e-5)
    assert np.isinf(cast(capsule, (0, -3, 1.6), (0, 1, 0))).all()


def test_frustum_side_and_cap():
    cone = Frustum((0, 0, 0), (0, 0, 2), 1.0, 0.0, GREY)
    np.testing.assert_allclose(cast(cone, (0, -3, 1), (0, 1, 0)), 2.5, rtol=1e-5)
    np.testing.assert_allclose(cast(cone, (0.5, 0, -2), (0, 0, 1)), 2.0, rtol=1e-5)
    assert np.isinf(cast(cone, (0, -3, 2.1), (0, 1, 0))).all()


def test_annulus_has_a_hole():
    ring = Annulus((0, 0, 0), (0, 1, 0), 0.5, 1.0, GREY)
    t = np.concatenate([cast(ring, (x, -2, 0), (0, 1, 0)) for x in (0.2, 0.7, 1.2)])
    np.testing.assert_allclose(t, [np.inf, 2, np.inf])


SHAPES = [
    Ellipsoid((0, 0, 0), (0.5, 0.8, 0.3), GREY),
    Capsule((-0.3, 0.1, 0), (0.4, 0, 0.5), 0.3, GREY),
    Frustum((0, -0.4, -0.3), (0.1, 0.3, 0.4), 0.5, 0.2, GREY),
    box((0.1, 0, 0), (0.8, 0.6, 1.0), GREY, taper=(0.3, 0.5)),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
@pytest.mark.parametrize("far", [3.0, 100.0])
def test_hits_lie_on_a_closed_surface_that_faces_the_ray(shape, far):
    rng = np.random.default_rng(0)
    origin = np.float32([0.3, -far, 0.2])
    directions = (rng.uniform(-0.6, 0.6, (3, 500)) - origin[:, None]).astype(np.float32)
    t = shape.intersect(origin, directions)
    hit = np.isfinite(t)
    assert hit.sum() > 50
    points = origin[:, None] + t[hit] * directions[:, hit]
    low, high = shape.corners().min(1), shape.corners().max(1)
    assert (points >= low[:, None] - 1e-4 * far).all()
    assert (points <= high[:, None] + 1e-4 * far).all()
    normals = shape.normals(points)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=0), 1, atol=1e-5)
    unit = directions[:, hit] / np.linalg.norm(directions[:, hit], axis=0)
    # 0.02: at a silhouette, the far starting point's float32 error turns the normal a little.
    assert np.einsum("in,in->n", normals, unit).max() < 0.02
    # A ray that starts beyond the hit point does not find it again.
    beyond = shape.intersect(np.float32([0.3, far, 0.2]), directions)
    assert not np.isfinite(beyond[directions[1] > 0]).any()


def test_turning_scales_too_and_a_shift_moves():
    sphere = Ellipsoid((1, 0, 0), 0.5, GREY)
    sphere.turn(rotation(2, np.pi / 2), scale=2)
    sphere.shift(np.array([0, 0, 3]))
    np.testing.assert_allclose(sphere.centre, [0, 2, 3], atol=1e-6)
    np.testing.assert_allclose(cast(sphere, (0, -1, 3), (0, 1, 0)), 2, rtol=1e-5)

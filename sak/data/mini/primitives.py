"""Closed-form ray intersection with the six shapes that everything in a scene is built of.

N number of rays or points, K number of faces. World frame: x right, y forward, z up, in metres. All rays of one call
start at one point (the camera or a light); a ray is origin + t * direction, directions need not have unit length,
and a ray that misses has t = inf. Points and directions are float32 (3, N).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

CORNERS = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).astype(np.float32)  # of a box, by their signs
Texture = Callable[[np.ndarray], np.ndarray]  # local points (3, N) -> colour in [0, 1] (3, N)
Vector = Sequence[float] | np.ndarray  # (3,)


def rotation(axis: int, angle: float) -> np.ndarray:
    """(3, 3) matrix that turns column vectors by `angle` radians about the x (0), y (1) or z (2) axis."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3, dtype=np.float32)
    matrix[i, i] = matrix[j, j] = c
    matrix[j, i], matrix[i, j] = s, -s
    return matrix


class Primitive:
    """A shape in its own frame (local = axes @ (world - centre) / scale), with a texture and a body part's name."""

    extent = np.zeros(3, np.float32)  # half sizes of the local bounding box
    casts_shadow = True

    def __init__(self, centre: Vector, texture: Texture, axes: np.ndarray | None = None, part: str = ""):
        self.centre = np.asarray(centre, np.float32)
        self.axes = np.eye(3, dtype=np.float32) if axes is None else np.asarray(axes, np.float32)
        self.scale = np.float32(1)
        self.texture = texture
        self.part = part

    def turn(self, turn: np.ndarray, scale: float = 1.0) -> None:
        """Scale about the origin, then turn."""
        self.centre = (turn @ (self.centre * scale)).astype(np.float32)
        self.axes = (self.axes @ turn.T).astype(np.float32)
        self.scale = np.float32(self.scale * scale)

    def shift(self, by: np.ndarray) -> None:
        self.centre = (self.centre + by).astype(np.float32)

    def local(self, points: np.ndarray) -> np.ndarray:
        return self.axes @ ((points - self.centre[:, None]) / self.scale)

    def intersect(self, origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Smallest t > 0 of each ray, inf where it misses: (N,)."""
        start = self.axes @ ((origin - self.centre) / self.scale)
        d = self.axes @ (directions / self.scale)
        # Moving each start to the ray's closest approach keeps float32 exact enough for far cameras and lights.
        nearest = -(start @ d) / np.einsum("in,in->n", d, d)
        o = start[:, None] + nearest * d
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            t = self._hit(o, d) + nearest
        return np.where(t > 1e-4, t, np.float32(np.inf))  # nan compares false: a miss

    def normals(self, points: np.ndarray) -> np.ndarray:
        """Outward unit normals (3, N) at world points on the surface."""
        n = self.axes.T @ self._normal(self.local(points))
        return n / np.linalg.norm(n, axis=0)

    def corners(self) -> np.ndarray:
        """World corners of the bounding box: (3, 8)."""
        return self.axes.T @ (CORNERS * self.extent[:, None]) * self.scale + self.centre[:, None]

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest coordinates of the corners: (3,) each."""
        reach = np.abs(self.axes.T) @ self.extent * self.scale
        return self.centre - reach, self.centre + reach

    def _hit(self, o: np.ndarray, d: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _normal(self, p: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class Plane(Primitive):
    """The infinite local plane z = 0: floors, walls, ground. It bounds the scene and shades nothing."""

    casts_shadow = False
    extent = np.full(3, np.inf, np.float32)

    def _hit(self, o, d):
        return -o[2] / d[2]

    def _normal(self, p):
        n = np.zeros_like(p)
        n[2] = 1
        return n


class Ellipsoid(Primitive):
    """Half axes `radii`; a sphere if they are equal."""

    def __init__(self, centre, radii, texture, axes=None, part=""):
        super().__init__(centre, texture, axes, part)
        self.extent = np.broadcast_to(np.asarray(radii, np.float32), 3).copy()

    def _hit(self, o, d):
        o, d = o / self.extent[:, None], d / self.extent[:, None]
        a, b = np.einsum("in,in->n", d, d), np.einsum("in,in->n", o, d)
        return (-b - np.sqrt(b * b - a * (np.einsum("in,in->n", o, o) - 1))) / a

    def _normal(self, p):
        return p / self.extent[:, None] ** 2


class Capsule(Primitive):
    """A segment from `start` to `end`, thickened by `radius`; the local z axis runs along it."""

    def __init__(self, start, end, radius, texture, part=""):
        start, end = np.asarray(start, np.float32), np.asarray(end, np.float32)
        super().__init__((start + end) / 2, texture, frame(end - start), part)
        self.half, self.radius = np.linalg.norm(end - start) / 2, np.float32(radius)
        self.extent = np.asarray([radius, radius, self.half + radius], np.float32)

    def _hit(self, o, d):
        (ox, oy, oz), (dx, dy, dz) = o, d
        r2 = self.radius**2
        a, b, c = np.maximum(dx * dx + dy * dy, 1e-12), ox * dx + oy * dy, ox * ox + oy * oy - r2
        t = (-b - np.sqrt(b * b - a * c)) / a
        z = oz + t * dz
        # Beyond the cylinder only the hemisphere on that side can be hit.
        end = oz - np.copysign(self.half, z)
        aa, bb, cc = a + dz * dz, b + end * dz, c + end * end
        return np.where(np.abs(z) <= self.half, t, (-bb - np.sqrt(bb * bb - aa * cc)) / aa)

    def _normal(self, p):
        n = p.copy()
        n[2] -= np.clip(p[2], -self.half, self.half)
        return n


class Frustum(Primitive):
    """A capped cone from `start` (radius `r0`) to `end` (radius `r1`): cylinders and cones too."""

    def __init__(self, start, end, r0, r1, texture, part=""):
        start, end = np.asarray(start, np.float32), np.asarray(end, np.float32)
        super().__init__((start + end) / 2, texture, frame(end - start), part)
        self.half = np.linalg.norm(end - start) / 2
        self.middle, self.slope = np.float32((r0 + r1) / 2), np.float32((r1 - r0) / 2 / self.half)
        self.extent = np.asarray([max(r0, r1), max(r0, r1), self.half], np.float32)

    def _hit(self, o, d):
        (ox, oy, oz), (dx, dy, dz) = o, d
        k, radius = self.slope, self.middle + self.slope * oz
        a = dx * dx + dy * dy - k * k * dz * dz
        b = ox * dx + oy * dy - k * radius * dz
        root = np.sqrt(b * b - a * (ox * ox + oy * oy - radius * radius))
        best = np.full_like(ox, np.inf)
        for t in ((-b - root) / a, (-b + root) / a):
            on = np.abs(oz + t * dz) <= self.half
            best = np.where(on & (t < best), t, best)
        for z in (-self.half, self.half):
            t = (z - oz) / dz
            on = (ox + t * dx) ** 2 + (oy + t * dy) ** 2 <= (self.middle + k * z) ** 2
            best = np.where(on & (t < best), t, best)
        return best

    def _normal(self, p):
        rho = np.hypot(p[0], p[1])
        on_cap = self.half - np.abs(p[2]) < np.abs(rho - self.middle - self.slope * p[2])
        side = np.stack([p[0], p[1], -self.slope * rho])
        cap = np.stack([np.zeros_like(rho), np.zeros_like(rho), np.sign(p[2])])
        return np.where(on_cap, cap, side)


class Polyhedron(Primitive):
    """The convex body {p: faces @ p <= offsets}, faces (K, 3) of unit length: boxes, wedges, cabins, hulls."""

    def __init__(self, centre, faces, offsets, extent, texture, axes=None, part=""):
        super().__init__(centre, texture, axes, part)
        faces = np.asarray(faces, np.float32)
        length = np.linalg.norm(faces, axis=1)
        self.faces, self.offsets = faces / length[:, None], np.asarray(offsets, np.float32) / length
        self.extent = np.asarray(extent, np.float32)

    def _hit(self, o, d):
        speed, gap = self.faces @ d, self.offsets[:, None] - self.faces @ o
        t = gap / speed
        enter = np.where(speed < 0, t, -np.inf).max(0)
        leave = np.where(speed > 0, t, np.inf).min(0)
        outside = ((speed == 0) & (gap < 0)).any(0)
        return np.where((enter <= leave) & ~outside, enter, np.inf).astype(np.float32)

    def _normal(self, p):
        return self.faces[np.argmax(self.faces @ p - self.offsets[:, None], axis=0)].T


class Annulus(Primitive):
    """A flat ring about `axis`, seen from both sides: tyres and rims."""

    def __init__(self, centre, axis, inner, outer, texture, part=""):
        super().__init__(centre, texture, frame(np.asarray(axis, np.float32)), part)
        self.inner, self.outer = np.float32(inner), np.float32(outer)
        self.extent = np.asarray([outer, outer, 0], np.float32)

    def _hit(self, o, d):
        t = -o[2] / d[2]
        rho = np.hypot(o[0] + t * d[0], o[1] + t * d[1])
        return np.where((rho >= self.inner) & (rho <= self.outer), t, np.inf)

    def _normal(self, p):
        n = np.zeros_like(p)
        n[2] = 1
        return n


def frame(z: np.ndarray) -> np.ndarray:
    """Rows: an orthonormal frame whose third axis points along `z`."""
    z = z / np.linalg.norm(z)
    a, b, c = z.tolist()
    x = np.array([c, 0.0, -a] if abs(b) < 0.9 else [0.0, -c, b])  # the y axis × z, or the x axis × z
    x /= np.linalg.norm(x)
    u, v, w = x.tolist()
    return np.array([x, [b * w - c * v, c * u - a * w, a * v - b * u], z], np.float32)  # x, z × x, z


def box(centre, size, texture, axes=None, part="", taper=(0.0, 0.0)) -> Polyhedron:
    """A box of full `size`; its top is narrower by the share `taper` in x and y (a car's cabin, a roof)."""
    hx, hy, hz = np.asarray(size, np.float32) / 2
    kx, ky = hx * taper[0] / (2 * hz), hy * taper[1] / (2 * hz)  # inward slope of the sides per height
    faces = [(1, 0, kx), (-1, 0, kx), (0, 1, ky), (0, -1, ky), (0, 0, 1), (0, 0, -1)]
    offsets = [hx - kx * hz, hx - kx * hz, hy - ky * hz, hy - ky * hz, hz, hz]
    return Polyhedron(centre, faces, offsets, (hx, hy, hz), texture, axes, part)

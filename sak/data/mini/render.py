"""Ray casting: one exact ray through each pixel's centre for the labels, and the pixels' corners for smoother colours.

S number of rows and columns of rays, N number of rays or points. A pixel's colour is half its centre ray and an eighth
of each corner ray (quincunx antialiasing): centres and corners lie in one array (2, S, S) with S = size + 1, of which
the centres' last row and column are unused. Each primitive is tested only inside its bounding box on the screen; shadow
rays run from the light, and each primitive is tested only for points inside its bounding box as the light sees it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sak.data.mini.classes import CONTEXT_ID, PART_NAMES
from sak.data.mini.primitives import Primitive
from sak.data.mini.scene import Camera, Light, Scene, look_at
from sak.data.mini.texture import column
from sak.data.pascal_part import PART_LABELS

NEAR = 0.05  # a bounding box that reaches nearer than this may cover the whole screen


@dataclass
class Rendering:
    """What one scene looks like; all maps are (H, W), exact at the pixels' centres."""

    image: np.ndarray  # uint8 (H, W, 3)
    semseg: np.ndarray  # uint8, VOC ids 0..20
    borders: np.ndarray  # bool, pixels that show parts of two objects, or of an object and what is none
    context: np.ndarray  # uint16, PASCAL-Context ids
    parts: np.ndarray  # uint8, 0 none, 1..6 body parts
    part_names: np.ndarray  # uint8, 0 none, else 1 + index into classes.PART_NAMES
    instances: np.ndarray  # uint8, 0 stuff, else 1 + index into Scene.things
    normals: np.ndarray  # float32 (H, W, 3), camera frame: x right, y up, z towards the viewer; 0 in the sky
    depth: np.ndarray  # float32, metres along the viewing direction; inf in the sky


def ray_directions(camera: Camera, size: int) -> np.ndarray:
    """World directions (3, 2, S, S) of the centre and corner rays; t along them is depth in metres."""
    steps = np.arange(size + 1, dtype=np.float32)
    rays = np.empty((3, 2, size + 1, size + 1), np.float32)
    for layer, offset in enumerate((0.5, 0.0)):
        at = (2 * (steps + offset) / size - 1) / camera.focal
        rays[0, layer], rays[1, layer] = at[None, :], -at[:, None]
    rays[2] = -1
    return np.tensordot(camera.axes.T, rays, axes=1)


def screen_box(primitive: Primitive, camera: Camera, size: int) -> tuple[slice, slice] | None:
    """Rows and columns of rays that may hit the primitive; None if it is out of view."""
    if not np.isfinite(primitive.extent).all():
        return slice(None), slice(None)
    x, y, z = camera.axes @ (primitive.corners() - camera.position[:, None])
    depth = -z
    if depth.max() < NEAR:
        return None
    if depth.min() < NEAR:
        return slice(None), slice(None)
    columns = (camera.focal * x / depth + 1) * size / 2
    rows = (1 - camera.focal * y / depth) * size / 2
    x0, x1 = max(int(columns.min()) - 1, 0), min(int(columns.max()) + 2, size + 1)
    y0, y1 = max(int(rows.min()) - 1, 0), min(int(rows.max()) + 2, size + 1)
    return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None


def first_hits(primitives: list[Primitive], camera: Camera, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth t and index of the first primitive along each ray: (2, S, S) float32, inf, and int16, -1 for the sky."""
    t = np.full(rays.shape[1:], np.inf, np.float32)
    index = np.full(rays.shape[1:], -1, np.int16)
    for i, primitive in enumerate(primitives):
        window = screen_box(primitive, camera, rays.shape[-1] - 1)
        if window is None:
            continue
        part = rays[:, :, window[0], window[1]]
        hit = primitive.intersect(camera.position, part.reshape(3, -1)).reshape(part.shape[1:])
        nearer = hit < t[:, window[0], window[1]]
        t[:, window[0], window[1]][nearer] = hit[nearer]
        index[:, window[0], window[1]][nearer] = i
    return t, index


def surfaces(primitives, index, points, directions) -> tuple[np.ndarray, np.ndarray]:
    """World normals towards the viewer and sRGB colours at the hit points: (3, N) each; index: (N,)."""
    normals, colours = np.empty_like(points), np.empty_like(points)
    order = np.argsort(index, kind="stable")
    starts = np.flatnonzero(np.diff(index[order], prepend=-2))
    for where in np.split(order, starts[1:]):
        primitive, p = primitives[index[where[0]]], points[:, where]
        normals[:, where] = primitive.normals(p)
        colours[:, where] = primitive.texture(primitive.local(p))
    facing = np.einsum("in,in->n", normals, directions)
    normals *= np.where(facing > 0, np.float32(-1), np.float32(1))
    return normals, np.clip(colours, 0, 1)


def shadowed(primitives: list[Primitive], light: Light, points: np.ndarray) -> np.ndarray:
    """Whether something stands between the light and each point: (N,) bool."""
    rays = points - light.position[:, None]
    axes = look_at(light.position, points.mean(1) + np.asarray([0.003, 0.002, 0], np.float32))
    x, y, z = axes @ rays
    ahead = -z > NEAR
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = x / -z, y / -z
    blocked = np.zeros(points.shape[1], bool)
    for primitive in primitives:
        if not primitive.casts_shadow:
            continue
        cx, cy, cz = axes @ (primitive.corners() - light.position[:, None])
        candidate = ahead & ~blocked
        if -cz.max() > NEAR:
            cu, cv = cx / -cz, cy / -cz
            candidate &= (u > cu.min()) & (u < cu.max()) & (v > cv.min()) & (v < cv.max())
        where = np.flatnonzero(candidate)
        if len(where):
            blocked[where] = primitive.intersect(light.position, rays[:, where]) < 0.9985
    return blocked


def shade(scene: Scene, primitives, points, normals, colours, depth) -> np.ndarray:
    """Lambert, ambient light from above and a faint highlight; colours are squared to be roughly linear: (3, N)."""
    albedo = colours**2
    ambient = np.asarray(scene.ambient, np.float32)[:, None]
    result = albedo * ambient * (0.8 + 0.2 * normals[2])
    view = scene.camera.position[:, None] - points
    view /= np.linalg.norm(view, axis=0)
    for light in scene.lights:
        towards = light.position[:, None] - points
        towards /= np.linalg.norm(towards, axis=0)
        cosine = np.einsum("in,in->n", normals, towards)
        lit = cosine > 0
        if light.shadow:
            where = np.flatnonzero(lit)
            if len(where):
                lifted = points[:, where] + normals[:, where] * (0.003 * depth[where])
                lit[where] = ~shadowed(primitives, light, lifted)
        half = towards + view
        half /= np.linalg.norm(half, axis=0)
        shine = np.clip(np.einsum("in,in->n", normals, half), 0, 1) ** 24
        strength = np.asarray(light.colour, np.float32)[:, None] * lit
        result += strength * (albedo * np.clip(cosine, 0, None) + 0.06 * shine)
    return result


def sky_colours(scene: Scene, directions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A gradient with a few soft clouds, roughly linear: (3, N)."""
    up = np.clip(directions[2] / np.linalg.norm(directions, axis=0), 0, 1)
    horizon, zenith = (column(colour) for colour in scene.sky)
    mix = up**0.6
    colours = horizon * (1 - mix) + zenith * mix
    plane = directions[:2] / np.clip(directions[2] + 0.4, 0.3, None)
    waves = rng.normal(0, 5, (6, 2)).astype(np.float32)
    cloud = np.clip(np.sin(waves @ plane + rng.uniform(0, 6.3, (6, 1)).astype(np.float32)).sum(0) / 3 - 0.2, 0, 0.8)
    return (colours * (1 - cloud) + 0.95 * cloud) ** 2


def render(scene: Scene) -> Rendering:
    """Cast the scene; deterministic for equal scenes."""
    size = scene.size
    rng = np.random.default_rng(list(scene.seed))
    owners = [i for i, thing in enumerate(scene.things) for _ in thing.primitives]
    primitives = [primitive for thing in scene.things for primitive in thing.primitives]
    rays = ray_directions(scene.camera, size)
    t, index = first_hits(primitives, scene.camera, rays)

    hit = np.flatnonzero(index.ravel() >= 0)
    missed = np.flatnonzero(index.ravel() < 0)
    directions = rays.reshape(3, -1)
    depth = t.ravel()[hit]
    points = scene.camera.position[:, None] + depth * directions[:, hit]
    normals, colours = surfaces(primitives, index.ravel()[hit], points, directions[:, hit])
    light = np.empty_like(directions)
    light[:, hit] = shade(scene, primitives, points, normals, colours, depth)
    light[:, missed] = sky_colours(scene, directions[:, missed], rng)
    if len(missed):  # haze: far ground fades into the horizon
        fade = 1 - np.exp(-np.clip(depth - 15, 0, None) / 90)
        light[:, hit] = light[:, hit] * (1 - fade) + column(scene.sky[0]) ** 2 * fade

    all_normals = np.zeros_like(directions)
    all_normals[:, hit] = scene.camera.axes @ normals
    centre_normals = all_normals.reshape(3, *t.shape)[:, 0, :size, :size].transpose(1, 2, 0)
    owner = index[0, :size, :size]
    look_up = Lookup(scene, primitives, owners)
    objects = np.where(look_up.semseg > 0, look_up.instances, 0)[index]
    return Rendering(
        image=develop(light.reshape(3, *t.shape), scene, rng),
        semseg=look_up.semseg[owner],
        borders=mixed(objects),
        context=look_up.context[owner],
        parts=look_up.parts[owner],
        part_names=look_up.part_names[owner],
        instances=look_up.instances[owner],
        normals=np.ascontiguousarray(centre_normals),
        depth=t[0, :size, :size].copy(),
    )


def mixed(objects: np.ndarray) -> np.ndarray:
    """Bool (H, W): pixels at one of whose corners there is another object (2, S, S) than at the centre."""
    centre, corner = objects[0, :-1, :-1], objects[1]
    corners = (corner[:-1, :-1], corner[1:, :-1], corner[:-1, 1:], corner[1:, 1:])
    return np.any([part != centre for part in corners], axis=0)


class Lookup:
    """Label tables over primitives; the last entry (index -1) is the sky's."""

    def __init__(self, scene: Scene, primitives: list[Primitive], owners: list[int]):
        things = [scene.things[i] for i in owners]
        names = [PART_NAMES.index(p.part) + 1 if p.part else 0 for p in primitives]
        self.semseg = np.asarray([thing.voc_id for thing in things] + [0], np.uint8)
        self.context = np.asarray([CONTEXT_ID[thing.name] for thing in things] + [CONTEXT_ID["sky"]], np.uint16)
        self.parts = np.asarray([PART_LABELS[p.part] if p.part else 0 for p in primitives] + [0], np.uint8)
        self.part_names = np.asarray([*names, 0], np.uint8)
        self.instances = np.asarray([0 if scene.things[i].stuff else i + 1 for i in owners] + [0], np.uint8)


def develop(light: np.ndarray, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Average centre and corner rays, expose, add sensor noise: uint8 (H, W, 3) from roughly linear (3, 2, S, S)."""
    centre, corner = light[:, 0, :-1, :-1], light[:, 1]
    corners = corner[:, :-1, :-1] + corner[:, 1:, :-1] + corner[:, :-1, 1:] + corner[:, 1:, 1:]
    tint = 1 + rng.normal(0, 0.03, (3, 1, 1))
    picture = np.sqrt(np.clip((0.5 * centre + 0.125 * corners) * scene.exposure * tint, 0, None))
    picture = picture + rng.normal(0, scene.sensor_noise, picture.shape)
    return np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)

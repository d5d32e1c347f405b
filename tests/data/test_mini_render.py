"""Renderings against geometry: exact normals and depth, labels that agree with each other."""

import numpy as np
import pytest

from sak.data.mini.annotation import encode_classes, regions
from sak.data.mini.caption import NOUNS
from sak.data.mini.classes import CONTEXT_ID, VOC
from sak.data.mini.dice import Dice
from sak.data.mini.drawing import MAIN_SHARE, draw, draw_twice
from sak.data.mini.places.compose import ORBIT, random_scene
from sak.data.mini.primitives import Annulus, Ellipsoid, Plane, box, rotation
from sak.data.mini.render import render
from sak.data.mini.saliency import salient_mask
from sak.data.mini.scene import Camera, Light, Scene, look_at
from sak.data.mini.texture import solid
from sak.data.mini.things.people import POSES, person
from sak.data.mini.things.thing import Thing
from sak.data.pascal_part import PERSON

SIZE = 32


def scene_of(things, size=SIZE, focal=1.5, height=0.0, lights=()):
    position = np.float32([0, 0, height])
    camera = Camera(position, look_at(position, np.float32([0, 5, height])), focal)
    return Scene(things, camera, list(lights), np.full(3, 0.5), size)


def ball(x=0.0, y=5.0, z=0.0, radius=1.0):
    return Thing("sheep", [Ellipsoid((x, y, z), radius, solid((0.9, 0.2, 0.2)))], "ball", voc="sheep")


def test_one_sphere_is_exact():
    rendering = render(scene_of([ball()], size=64))
    at = (2 * (np.arange(64) + 0.5) / 64 - 1) / 1.5
    u, v = np.meshgrid(at, -at)
    rays = np.stack([u, v, -np.ones_like(u)], axis=-1)  # camera frame; the sphere's centre is at (0, 0, -5)
    a, b, c = (rays**2).sum(-1), 5.0, 24.0
    inside = b * b - a * c > 0
    np.testing.assert_array_equal(rendering.instances == 1, inside)
    depth = (b - np.sqrt(np.clip(b * b - a * c, 0, None))) / a
    normals = rays * depth[..., None] - [0, 0, -5]
    np.testing.assert_allclose(rendering.depth[inside], depth[inside], atol=2e-4)
    np.testing.assert_allclose(rendering.normals[inside], normals[inside], atol=2e-3)
    assert np.isinf(rendering.depth[~inside]).all()
    assert (rendering.context[~inside] == CONTEXT_ID["sky"]).all()
    assert (rendering.normals[~inside] == 0).all()


def test_the_nearer_object_covers_the_farther():
    rendering = render(scene_of([ball(y=8, radius=2), ball(y=4, radius=0.5)]))
    assert rendering.instances[SIZE // 2, SIZE // 2] == 2
    assert (rendering.instances == 1).any()


def test_a_light_throws_a_shadow():
    floor = Thing("floor", [Plane((0, 0, 0), solid((0.8, 0.8, 0.8)))], stuff=True)
    light = Light(np.float32([0, 6, 8]), np.ones(3), shadow=True)
    dark = render(scene_of([ball(y=6, z=2, radius=0.5), floor], 64, height=1.5, lights=[light])).image.astype(int)
    light.shadow = False
    bright = render(scene_of([ball(y=6, z=2, radius=0.5), floor], 64, height=1.5, lights=[light])).image.astype(int)
    difference = (bright - dark).sum(-1)
    shadow = difference > 60
    assert difference.min() >= -3  # a shadow never brightens
    assert 5 < shadow.sum() < 600
    columns = np.flatnonzero(shadow.any(0))
    assert columns.min() + columns.max() == 63  # straight below the ball, so symmetric about the middle


def test_nearest_salient_object_wins():
    rendering = render(scene_of([ball(x=-0.9, y=5), ball(x=3.2, y=9, radius=0.5)]))
    np.testing.assert_array_equal(salient_mask(rendering), rendering.instances == 1)


@pytest.mark.parametrize("pose", POSES)
def test_people_show_all_six_parts_from_the_front(pose):
    someone = person(Dice([3], [3]), pose).move((0, 4.0, -0.9))
    rendering = render(scene_of([someone], 64))
    assert set(np.unique(rendering.parts)) == {0, 1, 2, 3, 4, 5, 6}
    np.testing.assert_array_equal(rendering.parts > 0, rendering.semseg == PERSON)
    rows = [np.nonzero(rendering.parts == label)[0].mean() for label in (1, 2, 6)]
    assert rows == sorted(rows)  # head above torso above feet


@pytest.fixture(scope="module")
def drawings():
    return [draw(seed=5, split="val", index=index, size=SIZE) for index in range(16)]


def test_maps_agree_with_each_other(drawings):
    for scene, rendering, _ in drawings:
        assert rendering.image.shape == (SIZE, SIZE, 3)
        assert rendering.image.std() > 5
        assert rendering.semseg.max() < len(VOC)
        assert np.isin(rendering.context, list(CONTEXT_ID.values())).all()
        assert rendering.parts.max() <= 6
        assert (rendering.semseg[rendering.parts > 0] == PERSON).all()
        np.testing.assert_array_equal(rendering.parts > 0, rendering.part_names > 0)
        ids = np.asarray([0] + [thing.voc_id for thing in scene.things])
        np.testing.assert_array_equal(ids[rendering.instances], rendering.semseg)
        assert (rendering.instances == 1).mean() >= MAIN_SHARE
        sky = rendering.context == CONTEXT_ID["sky"]
        np.testing.assert_array_equal(np.isinf(rendering.depth), sky)


def test_normals_have_unit_length_and_face_the_camera(drawings):
    at = (2 * (np.arange(SIZE) + 0.5) / SIZE - 1).astype(np.float32)
    for scene, rendering, _ in drawings:
        solid_ground = np.isfinite(rendering.depth)
        normals = rendering.normals[solid_ground]
        np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-4)
        u, v = np.meshgrid(at / scene.camera.focal, -at / scene.camera.focal)
        rays = np.stack([u, v, -np.ones_like(u)], axis=-1)[solid_ground]
        assert (np.einsum("ni,ni->n", normals, rays) < 1e-4).all()


def test_captions_name_the_main_object(drawings):
    for scene, _, caption in drawings:
        assert any(noun in caption for noun in NOUNS[scene.things[0].voc])
        assert scene.place in caption


def test_salient_objects_are_whole_instances(drawings):
    for _, rendering, _ in drawings:
        mask = salient_mask(rendering)
        assert mask.any()
        assert (rendering.semseg[mask] > 0).all()
        assert not np.intersect1d(rendering.instances[mask], rendering.instances[~mask]).size


@pytest.fixture(scope="module")
def painted():
    """Scenes and what they look like when they are painted anew, from the same place and from another."""
    scenes = []
    for index in range(12):
        key = (7, 0, index)
        here, there = (random_scene(Dice(key, (*key, paint)), SIZE) for paint in (0, 1))
        turned = random_scene(Dice(key, (*key, 1)), SIZE, turn=ORBIT)
        scenes.append((here, *map(render, (here, there, turned))))
    return scenes


def test_another_paint_is_the_same_scene_in_other_colours(painted):
    differences = []
    for _, before, after, _ in painted:
        for name in ("semseg", "borders", "context", "parts", "instances", "normals", "depth"):
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
        differences.append(np.abs(before.image.astype(int) - after.image).mean())
    assert min(differences) > 10


def test_the_camera_turns_about_the_main_object(painted):
    for scene, _, straight, turned in painted:
        low, high = scene.things[0].bounds()
        depths = [
            np.median(view.depth[view.instances == 1]) for view in (straight, turned) if (view.instances == 1).any()
        ]
        assert len(depths) < 2 or abs(depths[0] - depths[1]) < np.linalg.norm(high - low)
        assert not np.array_equal(straight.instances, turned.instances)


def test_a_scene_seen_again_still_shows_its_main_object():
    for index in range(6):
        _, first, _, again = draw_twice(1, "unlabelled", index, SIZE)
        assert min((view.instances == 1).mean() for view in (first, again)) >= MAIN_SHARE
        np.testing.assert_array_equal(first.image, draw(1, "unlabelled", index, SIZE)[1].image)


def test_borders_are_the_pixels_that_show_two_objects(drawings):
    rendering = render(
        scene_of([ball(), Thing("box", [Ellipsoid((0, 4, -1.2), 0.3, solid((0.1, 0.1, 0.9)))], "box")], 64)
    )
    at = (2 * np.arange(65) / 64 - 1) / 1.5
    u, v = np.meshgrid(at, -at)  # of the corners
    inside = 5.0**2 - (u**2 + v**2 + 1) * 24.0 > 0
    corners = np.stack([inside[:-1, :-1], inside[1:, :-1], inside[:-1, 1:], inside[1:, 1:]])
    plain = rendering.instances != 2  # the box stands before a part of the rim, and is no object of VOC
    expected = (corners != (rendering.semseg > 0)).any(0)
    np.testing.assert_array_equal(rendering.borders[plain & ~near(~plain)], expected[plain & ~near(~plain)])
    assert 0.01 < np.mean([drawing.borders.mean() for _, drawing, _ in drawings]) < 0.25
    for _, drawing, _ in drawings:
        labels = encode_classes(drawing)
        np.testing.assert_array_equal(labels == 255, drawing.borders)
        np.testing.assert_array_equal(labels[labels < 255], drawing.semseg[labels < 255])


def near(mask):
    padded = np.pad(mask, 1)
    return np.any(
        [padded[1 + y : 1 + y + len(mask), 1 + x : 1 + x + len(mask)] for y in (-1, 0, 1) for x in (-1, 0, 1)], 0
    )


def test_regions_number_everything(drawings):
    for _, rendering, _ in drawings:
        numbers, classes = regions(rendering.instances, rendering.context)
        np.testing.assert_array_equal(np.asarray(classes)[numbers], rendering.context)
        things = rendering.instances > 0
        np.testing.assert_array_equal(numbers[things], rendering.instances[things])
        assert numbers[~things].min(initial=255) > rendering.instances.max()


@pytest.mark.parametrize("shape", ["slanted square", "disc", "bar"])
def test_image_and_labels_agree_to_a_fraction_of_a_pixel(shape):
    """A bright shape before a dark wall has its centre of mass where its mask has it."""
    white = solid((0.95, 0.95, 0.95))
    things = {
        "slanted square": box((0.04, 4, 0.03), (1.3, 0.1, 1.3), white, axes=rotation(1, 0.3)),
        "disc": Annulus((-0.05, 4, 0.02), (0, 1, 0), 0.0, 0.7, white),
        "bar": box((0.02, 4, -0.04), (0.5, 0.1, 1.9), white, axes=rotation(1, 1.0)),
    }
    backdrop = Thing("wall", [Plane((0, 9, 0), solid((0.02, 0.02, 0.02)), rotation(0, np.pi / 2))], stuff=True)
    rendering = render(scene_of([Thing("sheep", [things[shape]], voc="sheep"), backdrop], 64))
    shown, mask = rendering.image.astype(float).mean(-1), rendering.instances == 1
    assert np.abs(offset(shown, mask)).max() < 0.1
    # What the assertion above can see: half a pixel to the side, as by a ray through the pixel's corner.
    for moved in ((shown + np.roll(shown, 1, axis=1)) / 2, (shown + np.roll(shown, -1, axis=0)) / 2):
        assert np.abs(offset(moved, mask)).max() > 0.35


def offset(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(x, y) by which an image is off a mask that it shows bright, from the centres of mass of both."""
    weights = [(image - image.min()) / (image.max() - image.min()), mask.astype(float)]
    rows, columns = np.mgrid[: len(mask), : len(mask)]
    centres = [np.asarray([(w * columns).sum(), (w * rows).sum()]) / w.sum() for w in weights]
    return centres[0] - centres[1]

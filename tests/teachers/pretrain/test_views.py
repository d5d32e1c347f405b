"""Random views: where they lie, what their colours become, what is hidden."""

import dataclasses

import pytest
import torch

from teachers.pretrain import views


def test_crop_keeps_the_box_and_mirrors_it():
    image = torch.arange(64.0).view(1, 1, 8, 8)
    right_half = torch.tensor([[0.75, 0.5, 0.5, 1.0]])
    straight = views.crop(image, right_half, torch.tensor([False]), 4, mode="nearest")
    assert set(straight.flatten().long().remainder(8).tolist()) <= {4, 5, 6, 7}
    mirrored = views.crop(image, right_half, torch.tensor([True]), 4)
    torch.testing.assert_close(mirrored.flip(3), views.crop(image, right_half, torch.tensor([False]), 4))


def test_boxes_lie_inside_and_have_their_area(generator):
    boxes = views.boxes(500, (0.1, 0.5), generator)
    assert (boxes[:, :2] - boxes[:, 2:] / 2).min() >= -1e-6
    assert (boxes[:, :2] + boxes[:, 2:] / 2).max() <= 1 + 1e-6
    area = boxes[:, 2] * boxes[:, 3]
    assert area.min() >= 0.1 - 1e-6
    assert area.max() <= 0.5 + 1e-6
    assert area.mean() == pytest.approx(0.3, abs=0.02)


def test_boxes_near_a_point_show_it(generator):
    points = torch.rand(500, 2, generator=generator)
    boxes = views.boxes(500, (0.05, 0.3), generator, near=points)
    assert ((points - boxes[:, :2]).abs() <= boxes[:, 2:] / 2 + 1e-6).all()
    assert (boxes[:, :2] - boxes[:, 2:] / 2).min() >= -1e-6
    assert (boxes[:, :2] + boxes[:, 2:] / 2).max() <= 1 + 1e-6
    middle = torch.full((500, 2), 0.5)
    off = (views.boxes(500, (0.05, 0.1), generator, near=middle)[:, :2] - 0.5).abs()
    assert 0.02 < off.mean() < 0.09


def test_larger_things_are_chosen_more_often(generator):
    things = torch.zeros(4000, 3, 5)
    things[:, 0, 4], things[:, 1, 4] = 0.64, 0.04
    counts = views.choose_things(things, generator).bincount(minlength=3) / 4000
    torch.testing.assert_close(counts, torch.tensor([0.8, 0.2, 0.0]), atol=0.03, rtol=0)
    assert views.choose_things(torch.zeros(5, 3, 5), generator).shape == (5,)  # scenes without any thing


def test_points_lie_on_things(generator):
    box = torch.tensor([0.2, 0.4, 0.6, 0.5, 0.01]).expand(300, 5)
    points = views.points_on(box, generator, spread=1.0)
    assert (points >= box[:, :2] - 1e-6).all()
    assert (points <= box[:, 2:4] + 1e-6).all()
    assert points[:, 0].std() == pytest.approx(0.4 / 12**0.5, rel=0.1)
    anywhere = views.points_on(torch.zeros(300, 5), generator, spread=1.0)
    assert anywhere.min() < 0.1
    assert anywhere.max() > 0.9


def test_recolouring_turns_hues_and_keeps_grey(generator):
    matrices = views.recolouring(400, 0.5, generator)
    grey = torch.full((3,), 0.3)
    torch.testing.assert_close(matrices @ grey, grey.expand(400, 3), atol=1e-5, rtol=0)
    identity = (matrices - torch.eye(3)).abs().amax((1, 2)) < 1e-6
    assert 0.4 < identity.float().mean() < 0.6
    others = matrices[~identity]
    torch.testing.assert_close(others @ others.mT, torch.eye(3).expand_as(others), atol=1e-5, rtol=0)  # no colour fades
    mirrored = torch.linalg.det(others) < 0  # an odd permutation of the channels: half of the half that is permuted
    assert 0.15 < mirrored.float().mean() < 0.35
    red = others @ torch.tensor([1.0, 0.0, 0.0])
    assert red.std(0).min() > 0.3  # red becomes every colour


def test_distortion_stays_within_its_ranges(generator):
    grey = torch.full((600, 3, 8, 8), 0.5)
    brightness = views.distort(grey, generator, strength=0.2, blur=0.0).mean((1, 2, 3))
    assert 0.5 * 0.8 * 0.9 <= brightness.min() < 0.43
    assert 0.57 < brightness.max() <= 0.5 * 1.2 * 1.1
    red = torch.zeros(600, 3, 8, 8)
    red[:, 0] = 0.6
    colourless = views.distort(red, generator, strength=0.0, blur=0.0).std(1).amax((1, 2)) < 1e-6
    assert 0.14 < colourless.float().mean() < 0.26
    edge = torch.zeros(600, 3, 8, 8)
    edge[..., 4:] = 1
    blurred = views.distort(edge, generator, strength=0.0, blur=0.3)[:, 0, 0, 3] > 0.01
    assert 0.23 < blurred.float().mean() < 0.37


def test_masks_are_blocks_on_a_part_of_the_views(generator):
    masks = views.block_masks(200, 16, (0.1, 0.5), 0.5, generator)
    share = masks.flatten(1).float().mean(1)
    assert (share > 0).sum() == 100
    hidden = share[share > 0]
    assert 0.1 <= hidden.min() < 0.15
    assert 0.45 < hidden.max() <= 0.55
    assert hidden.mean() == pytest.approx(0.31, abs=0.04)
    some = masks[share > 0]
    inner = some[:, :, 1:] & some[:, :, :-1]  # in blocks the neighbour of a hidden patch mostly is hidden too
    assert inner.float().sum() / some[:, :, :-1].float().sum() > 0.75


def test_half_of_the_images_are_the_scenes_again(scenes, generator):
    index = torch.zeros(200, dtype=torch.long)
    shown = views.either(scenes, index, generator)
    again = (shown == scenes.again[0][:1]).flatten(1).all(1)
    first = (shown == scenes.images[:1]).flatten(1).all(1)
    assert (again ^ first).all()
    assert 0.4 < again.float().mean() < 0.6


def test_the_same_places_by_hand():
    """A thing in the left half of one scene, moved and smaller in the scene again, which is seen in a mirrored crop."""
    whole, right = torch.tensor([[0.5, 0.5, 1.0, 1.0]]), torch.tensor([[0.75, 0.5, 0.5, 1.0]])
    left = torch.tensor([[0.0, 0.0, 0.5, 1.0, 0.5]])
    moved = torch.tensor([[0.5, 0.25, 0.75, 0.75, 0.1]])
    straight, mirrored = torch.tensor([False]), torch.tensor([True])
    source = views.View(torch.zeros(1), whole, straight, left)
    target = views.View(torch.zeros(1), right, mirrored, moved)
    points, there = views.same_places(source, target, 4)
    assert there[0].view(4, 4).tolist() == [[True, True, False, False]] * 4  # the right half is not on the thing
    # The patch at (1/8, 1/8) is a quarter into the thing, and an eighth down: at (0.5625, 0.3125) of the scene again,
    # an eighth from the left of the crop, which is mirrored.
    torch.testing.assert_close(points[0, 0], torch.tensor([0.875, 0.3125]))
    back, known = views.same_places(target, source, 4)
    assert known.any()
    torch.testing.assert_close(target.from_scene(target.to_scene(back)), back)
    for view in (source, target):
        absent = dataclasses.replace(view, things=torch.zeros(1, 5))
        other = target if view is source else source
        assert not views.same_places(absent, other, 4)[1].any()
        assert not views.same_places(other, absent, 4)[1].any()

"""S2 teachers against the formula, written out tile by tile."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import teachers
from sak.errors import UserError
from teachers import MultiScale

TINY = teachers.TeacherSpec(
    family="dinov2",
    model="vit_small_patch14_dinov2",
    weights="random",
    levels=[0, 2],
    options={"img_size": 28, "patch_size": 7, "embed_dim": 24, "depth": 3, "num_heads": 2},
)
TINY_SAM = teachers.TeacherSpec(
    family="sam",
    model="vit_b",
    weights="random",
    levels=[1],
    options={"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "window_size": 3,
             "global_attn_indexes": [1]},
)  # fmt: skip


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randomised(teacher):
    """All parameters random, so that positions matter."""
    for parameter in teacher.parameters():
        nn.init.normal_(parameter, std=0.2)
    return teacher


def reference(teacher, images, native, scales, resize_to):
    """Section 3 of arXiv 2403.13043, one tile after the other; {level: (B, n·D, h, w)}."""
    height, width = native
    by_scale = []
    for scale in scales:
        image = F.interpolate(images.float(), size=(scale * height, scale * width), mode="bicubic")
        rows = []
        for row in range(scale):
            tiles = []
            for column in range(scale):
                top, left = row * height, column * width
                tiles.append(teacher(image[:, :, top : top + height, left : left + width]))
            rows.append([torch.cat(levels, dim=3) for levels in zip(*tiles, strict=True)])
        by_scale.append([torch.cat(levels, dim=2) for levels in zip(*rows, strict=True)])
    target = by_scale[0 if resize_to == "first" else -1]
    return [
        torch.cat([F.interpolate(maps[level], size=target[level].shape[-2:], mode="area") for maps in by_scale], dim=1)
        for level in range(len(teacher.levels))
    ]


@pytest.mark.parametrize("resize_to", ["first", "last"])
@pytest.mark.parametrize("scales", [[1, 2], [1, 2, 3], [2]])
@pytest.mark.parametrize("native", [(28, 28), (21, 42)])
def test_the_formula(native, scales, resize_to):
    plain = randomised(teachers.build("t", TINY))
    teacher = MultiScale(plain, scales, resize_to)
    images = torch.rand(2, 3, *native)
    expected = reference(plain, images, native, scales, resize_to)
    features = teacher(images)
    for level, (ours, theirs) in enumerate(zip(features, expected, strict=True)):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        assert ours.shape == (2, teacher.dims[level], *teacher.grid(*native, level))
    assert teacher.dims == [24 * len(scales)] * 2


def test_a_size_that_no_patch_divides():
    """The first channels are the plain teacher's; the others see the image itself at twice the teacher's own size."""
    plain = randomised(teachers.build("t", TINY))
    images = torch.rand(1, 3, 30, 61)
    both = MultiScale(plain, [1, 2])(images)
    at_two = reference(plain, images, (28, 63), [2], "first")
    for ours, first, second in zip(both, plain(images), at_two, strict=True):
        torch.testing.assert_close(ours[:, :24], first)
        torch.testing.assert_close(ours[:, 24:], F.avg_pool2d(second, 2), rtol=1e-4, atol=1e-5)


def test_sam_tiles_meet_at_whole_patches():
    """32 × 20 pixels at a longer side of 32 give 4 × 3 patches, the last of them half padding: a tile is 32 × 24."""
    plain = randomised(teachers.build("t", TINY_SAM))
    images = torch.rand(2, 3, 64, 40)
    (ours,) = MultiScale(plain, [1, 2], "last")(images)
    (expected,) = reference(plain, images, (32, 24), [2], "last")
    assert ours.shape == (2, 48, 8, 6)
    torch.testing.assert_close(ours[:, 24:], expected, rtol=1e-4, atol=1e-5)


def test_built_from_the_specification():
    teacher = teachers.build("t", dataclasses.replace(TINY, scales=[1, 2]))
    assert isinstance(teacher, MultiScale)
    assert not teacher.train().training
    assert not teacher.teacher.training
    committee = teachers.Committee({"a": dataclasses.replace(TINY, scales=[1, 2, 3], resize_to="last"), "b": TINY})
    assert committee.dims == {"a": [72, 72], "b": [24, 24]}
    assert [tuple(level.shape) for level in committee(torch.rand(1, 3, 28, 14))["a"]] == [(1, 72, 12, 6)] * 2


@pytest.mark.parametrize("scales", [[], [0, 1], [2, 1], [1, 1], [-1]])
def test_scales_that_cannot_be_tiled(scales):
    with pytest.raises(UserError, match=r"teacher t: scales .* cannot be tiled; .*whole numbers"):
        teachers.build("t", dataclasses.replace(TINY, scales=scales))


def test_other_mistakes():
    with pytest.raises(UserError, match=r"teacher t: scales\[1\]: .*1\.5"):
        teachers.build("t", {**vars(TINY), "scales": [1, 1.5]})
    with pytest.raises(UserError, match="'first' or 'last'"):
        teachers.build("t", dataclasses.replace(TINY, scales=[1, 2], resize_to="middle"))

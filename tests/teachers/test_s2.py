"""S2 against the formula, written out tile by tile, for every form of model, shape of image and kind of grid."""

import copy
import math
import subprocess
import sys

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from sak.adaptation import S2
from sak.errors import UserError
from teachers.s2 import Look, cut, stitch, tile_grid

PATCH, WIDTH, PREFIX = 4, 6, 2


class Maps(nn.Module):
    """Tiles are not independent of their place: a map is what a patch is, and how it differs from its tile's mean."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.seen = []

    def forward(self, images):
        self.seen.append(tuple(images.shape[-2:]))
        maps = self.embed(images)
        return maps - 2 * maps.mean((2, 3), keepdim=True).tanh()


class Tokens(Maps):
    def forward(self, images):
        patches = super().forward(images).flatten(2).transpose(1, 2)
        mean = patches.mean(1, keepdim=True)
        return torch.cat([mean, mean.square(), patches], dim=1)


class Levels(Maps):
    def forward(self, images):
        maps = super().forward(images)
        return [maps, F.avg_pool2d(maps, 2)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def reference(model, images, sizes, tile, target=0, merge=torch.cat):
    """Equations of section 3 for a model that gives maps: sizes in pixels of each scale, tiles one after the other."""
    scales = []
    for height, width in sizes:
        larger = F.interpolate(images, size=(height, width), mode="bicubic") if images.shape[-2:] != (height, width) \
            else images  # fmt: skip
        rows, columns = math.ceil(height / tile[0]), math.ceil(width / tile[1])
        h, w = height // rows, width // columns
        scales.append(torch.cat([
            torch.cat([model(larger[:, :, r * h : (r + 1) * h, c * w : (c + 1) * w]) for c in range(columns)], dim=3)
            for r in range(rows)
        ], dim=2))  # fmt: skip
    grid = scales[target].shape[-2:]
    return merge([F.interpolate(maps, size=grid, mode="area") for maps in scales], 1)


def summed(maps, _):
    return sum(maps)


@pytest.mark.parametrize(
    ("scales", "image", "sizes"),
    [
        ([1, 2], (16, 16), [(16, 16), (32, 32)]),
        ([1, 2, 3], (16, 16), [(16, 16), (32, 32), (48, 48)]),
        ([1, 1.5], (16, 16), [(16, 16), (24, 24)]),  # two tiles of 12 pixels a side
        ([0.5, 2], (16, 16), [(8, 8), (32, 32)]),
        ([1, 2.5], (24, 12), [(24, 12), (60, 30)]),  # three tiles of 20 pixels, and of 10
        ([1, 2], (20, 36), [(20, 36), (40, 72)]),
        ([1, 2], (17, 37), [(17, 37), (34, 74)]),  # no whole patches: tiles have the image's own size
        ([1, 3], (5, 8), [(5, 8), (15, 24)]),
    ],
)
@pytest.mark.parametrize("resize_to", ["first", "last"])
@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_the_formula(scales, image, sizes, resize_to, merge):
    model, images = Maps(), torch.rand(2, 3, *image)
    s2 = S2(model, scales, resize_to=resize_to, merge=merge)
    target = 0 if resize_to == "first" else -1
    expected = reference(model, images, sizes, image, target, torch.cat if merge == "concat" else summed)
    torch.testing.assert_close(s2(images), expected)
    assert [look.size for look in s2.looks(*image)] == sizes


def test_an_image_gets_to_whole_patches_without_padding():
    model, images = Maps(), torch.rand(1, 3, 17, 38)
    found = S2(model, [1, 2], patch_size=PATCH)(images)
    assert found.shape == (1, 2 * WIDTH, 4, 10)
    torch.testing.assert_close(found, reference(Maps.forward.__get__(model), images, [(16, 40), (32, 80)], (16, 40)))


def test_a_native_size_that_is_not_the_images():
    model, images = Maps(), torch.rand(1, 3, 30, 50)
    torch.testing.assert_close(
        S2(model, [1, 2], size=(16, 24))(images), reference(model, images, [(16, 24), (32, 48)], (16, 24))
    )
    shrunk = F.interpolate(images, size=(16, 16), mode="bicubic", antialias=True)
    torch.testing.assert_close(S2(model, [1], size=16, antialias=True)(images), model(shrunk))


def test_smaller_tiles():
    """Scale 1 is cut too."""
    model, images = Maps(), torch.rand(2, 3, 16, 32)
    found = S2(model, [1, 2], max_split_size=8)(images)
    torch.testing.assert_close(found, reference(model, images, [(16, 32), (32, 64)], (8, 8)))
    assert set(model.seen) == {(8, 8)}
    model.seen.clear()
    S2(model, [1, 2], max_split_size=(16, 8))(images)
    assert set(model.seen) == {(16, 8)}


def test_the_whole_image():
    model, images = Maps(), torch.rand(2, 3, 16, 20)
    found = S2(model, [1, 2], split=False)(images)
    assert model.seen == [(16, 20), (32, 40)]
    torch.testing.assert_close(found, reference(model, images, [(16, 20), (32, 40)], (64, 64)))
    assert not torch.allclose(found, S2(model, [1, 2])(images), atol=1e-3)


@pytest.mark.parametrize("merge", ["concat", "sum"])
@pytest.mark.parametrize("image", [(16, 16), (20, 36), (17, 37), (5, 30)])
def test_tokens_are_the_maps_and_prefix_tokens_the_mean_over_tiles(merge, image):
    tokens, images = Tokens(), torch.rand(2, 3, *image)
    maps = Maps()
    maps.load_state_dict(tokens.state_dict())
    found = S2(tokens, [1, 2], num_prefix_tokens=PREFIX, merge=merge)(images)
    expected = S2(maps, [1, 2], merge=merge)(images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(found[:, PREFIX:], expected)
    h, w = image
    large = F.interpolate(images, size=(2 * h, 2 * w), mode="bicubic")
    tiles = [large[:, :, r : r + h, c : c + w] for r in (0, h) for c in (0, w)]
    at_two = sum(tokens(tile)[:, :PREFIX] for tile in tiles) / 4
    at_one = tokens(images)[:, :PREFIX]
    joined = torch.cat([at_one, at_two], dim=2) if merge == "concat" else at_one + at_two
    torch.testing.assert_close(found[:, :PREFIX], joined)


def test_levels():
    levels, images = Levels(), torch.rand(2, 3, 16, 24)
    found = S2(levels, [1, 2])(images)
    assert isinstance(found, list)
    for number, level in enumerate(found):
        single = S2(lambda tiles, number=number: levels(tiles)[number], [1, 2])
        torch.testing.assert_close(level, single(images))
    assert [tuple(level.shape) for level in found] == [(2, 2 * WIDTH, 4, 6), (2, 2 * WIDTH, 2, 3)]


def test_a_vision_transformer_of_timm_and_its_tokens():
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=0).eval()
    s2 = S2(vit.forward_features, [1, 2, 3], num_prefix_tokens=1, patch_size=8)
    found = s2(torch.rand(2, 3, 32, 32))
    assert found.shape == (2, 17, 3 * 192)
    assert s2.looks(32, 32) == [Look((32, 32), n, n) for n in (1, 2, 3)]


def test_no_weight_of_its_own_and_gradients_pass():
    model = Maps()
    s2 = S2(model, [1, 2])
    assert list(s2.parameters()) == list(model.parameters())
    s2(torch.rand(1, 3, 8, 8)).sum().backward()
    assert model.embed.weight.grad.abs().sum() > 0
    torch.testing.assert_close(copy.deepcopy(s2)(torch.ones(1, 3, 8, 8)), s2(torch.ones(1, 3, 8, 8)))


def test_half_precision_stays_and_is_resized_in_float32():
    model = Maps().to(torch.bfloat16)
    images = torch.rand(1, 3, 16, 16).to(torch.bfloat16)
    found = S2(model, [1, 2])(images)
    assert found.dtype == torch.bfloat16
    larger = F.interpolate(images.float(), size=(32, 32), mode="bicubic").to(torch.bfloat16)
    at_two = stitch(model(cut(larger, 2)), 2).float()
    torch.testing.assert_close(found[:, WIDTH:], F.avg_pool2d(at_two, 2).to(torch.bfloat16))


@pytest.mark.parametrize(
    ("image", "grid"),
    [
        ((100, 100), (2, 2)),  # also 3 × 3 is square, but needs more pixels than the image has half of
        ((400, 400), (3, 3)),
        ((100, 200), (2, 4)),  # 1 × 2 would be fewer tiles than the last scale has
        ((300, 100), (4, 1)),  # 3 × 1 are too few tiles and 6 × 2 too many: |1/3 − 1/4| is less than |1/3 − 1/2|
        ((100, 900), (1, 9)),
        ((100, 160), (2, 3)),
    ],
)
def test_nvilas_grid(image, grid):
    """Worked out by hand: grids of 4 to 9 tiles of 64 pixels."""
    assert tile_grid(*image, least=4, most=9, tile=64 * 64) == grid


def test_only_the_last_scale_follows_the_image():
    model, images = Maps(), torch.rand(1, 3, 24, 48)
    s2 = S2(model, [1, 2], size=16, max_tiles=8, resize_to="last")
    assert s2.looks(24, 48) == [Look((16, 16), 1, 1), Look((16, 16), 2, 4)]
    assert S2(model, [1, 1.9], size=16, max_tiles=1).looks(24, 48) == [Look((16, 16), 1, 1)] * 2
    found = s2(images)
    assert found.shape == (1, 2 * WIDTH, 8, 16)
    expected = reference(model, images, [(16, 16), (32, 64)], (16, 16), target=-1)
    torch.testing.assert_close(found, expected)


def test_stitch_undoes_cut():
    images = torch.rand(2, 3, 6, 9)
    assert cut(images, 3).shape == (18, 3, 2, 3)
    torch.testing.assert_close(cut(images, 3)[1], images[0, :, :2, 3:6])
    torch.testing.assert_close(cut(images, (2, 3))[1], images[0, :, :3, 3:6])
    torch.testing.assert_close(stitch(cut(images, 3), 3), images)
    torch.testing.assert_close(stitch(cut(images, (3, 1)), (3, 1)), images)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"scales": []}, "increasing positive numbers"),
        ({"scales": [2, 1]}, "increasing positive numbers"),
        ({"scales": [0, 1]}, "increasing positive numbers"),
        ({"scales": 2}, "increasing positive numbers"),
        ({"scales": "12"}, "increasing positive numbers"),
        ({"scales": [1, math.inf]}, "increasing positive numbers"),
        ({"scales": [True]}, "increasing positive numbers"),
        ({"merge": "mean"}, "merge is 'mean'; it can be 'concat' or 'sum'"),
        ({"resize_to": 1}, "resize_to is 1"),
        ({"patch_size": 0}, "patch_size 0 must be a whole number from 1"),
        ({"patch_size": (4, 4)}, "patch_size .4, 4. must be"),
        ({"num_prefix_tokens": -1}, "num_prefix_tokens -1"),
        ({"size": (1, 2, 3)}, r"size is \(1, 2, 3\); give pixels"),
        ({"size": 0}, "size is 0"),
        ({"max_split_size": "8"}, "max_split_size is '8'"),
        ({"split": False, "max_split_size": 8}, "max_split_size has no meaning"),
        ({"max_tiles": 8}, "give their side in pixels as size"),
        ({"max_tiles": 3, "size": 16}, "at least 4 tiles"),
        ({"model": "vit"}, "the model is a str"),
    ],
)
def test_mistakes_when_it_is_made(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        S2(**{"model": Maps(), **arguments})


@pytest.mark.parametrize(
    ("model", "arguments", "image", "sentence"),
    [
        (
            Maps(),
            {"scales": [1, 2.5]},
            (16, 24),
            "scale 2.5 of 16 × 24 pixels is 40 × 60, which does not divide into 3 × 3",
        ),
        (
            Maps(),
            {"scales": [1, 1.5], "patch_size": 4},
            (20, 20),
            "does not divide into 2 × 2 equal tiles of whole pat",
        ),
        (Maps(), {"scales": [0.01, 1]}, (20, 20), "is 0 × 0, which does not divide"),
        (lambda images: "features", {}, (8, 8), "the model gives str; it must give maps"),
        (lambda images: None, {}, (8, 8), "the model gives NoneType"),
        (lambda images: images.mean((2, 3)), {}, (8, 8), r"the model gives \(1, 3\)"),
        (lambda images: [{}], {}, (8, 8), "the model gives dict"),
        (Tokens(), {"num_prefix_tokens": 20}, (16, 16), "0 tokens of a tile of 16 × 16 pixels, without 20 prefix"),
        # 20 tokens would make 4 × 5 places, but no grid of a square.
        (
            lambda images: torch.zeros(len(images), 20, 6),
            {},
            (16, 16),
            "20 tokens of a tile of 16 × 16 pixels, without 0",
        ),
        (Tokens(), {}, (16, 16), "18 tokens of a tile of 16 × 16 pixels, without 0 prefix tokens, are no grid"),
    ],
)
def test_mistakes_when_it_is_called(model, arguments, image, sentence):
    with pytest.raises(UserError, match=sentence):
        S2(model, **arguments)(torch.rand(1, 3, *image))


def test_importing_the_room_loads_no_torch():
    code = "import sys, sak.adaptation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

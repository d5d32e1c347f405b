"""The vocabulary network beside segment_anything's own encoder, and its tokens at every size."""

import functools

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn
from torch.nn import functional as F

from sak.errors import UserError
from sak.vocabulary.network import PAPER, POSITIONS_STD, VocabularyNetwork


def test_it_is_segment_anythings_encoder_and_two_bare_convolutions(parts):
    ours = parts.network().eval()
    norm = functools.partial(nn.LayerNorm, eps=1e-6)
    theirs = ImageEncoderViT(img_size=64, norm_layer=norm, use_rel_pos=True, **parts.OPTIONS).eval()
    state = ours.state_dict()
    for name, value in state.items():
        if "rel_pos" in name:
            value.normal_()
    first, second = state.pop("net_2.weight"), state.pop("net_3.weight")
    theirs.load_state_dict(state, strict=True)
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    maps = theirs((images - mean) / std)
    for weight in (first, second):
        maps = F.conv2d(maps, weight, stride=2, padding=1)
    torch.testing.assert_close(ours(images), maps.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("statistics", ["imagenet", "clip"])
def test_at_first_a_patch_of_plain_paper_brings_nothing_but_its_place(parts, statistics):
    network = VocabularyNetwork("vit_b", (64, 64), parts.OPTIONS, [24], statistics)
    paper = torch.full((1, 3, 64, 64), PAPER)
    brought = network.patch_embed((paper - network.mean) / network.std)
    convolution = network.patch_embed.proj
    assert brought.abs().max() < convolution.weight[0].numel() ** -0.5 + 1e-5  # what its own bias begins with
    assert network.patch_embed((paper - 0.5 - network.mean) / network.std).abs().max() > 0.5
    assert network.pos_embed.std().item() == pytest.approx(POSITIONS_STD, rel=0.1)


@pytest.mark.parametrize(("side", "tokens"), [(512, 64), (640, 100), (1024, 256), (1280, 400)])
def test_tokens_of_each_resolution_at_full_size(side, tokens):
    with torch.device("meta"):
        full = VocabularyNetwork("vit_b", [1024, 1024])
    rows, columns = full.grid(side, side)
    assert rows * columns == tokens
    assert full.convolutions[-1].weight.shape == (1024, 512, 3, 3)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (96, 64), (128, 128)])
def test_other_sizes_than_that_of_training_are_taken(parts, size):
    ours = parts.network()
    rows, columns = ours.grid(*size)
    assert (rows, columns) == (size[0] // 32, size[1] // 32)
    assert ours(torch.rand(1, 3, *size)).shape == (1, rows * columns, 32)


def test_pages_need_not_be_square(parts):
    ours = parts.network(size=(32, 96))
    assert ours.pos_embed.shape == (1, 4, 12, 32)
    assert ours.blocks[1].attn.rel_pos_h.shape[0] == 7
    assert ours.blocks[1].attn.rel_pos_w.shape[0] == 23
    assert ours(torch.rand(1, 3, 32, 96)).shape == (1, 3, 32)


def test_every_weight_learns(parts):
    ours = parts.network()
    ours(torch.rand(1, 3, 64, 64)).square().sum().backward()
    assert [name for name, weight in ours.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize("size", [(60, 64), (64, 16), (0, 64)])
def test_a_size_that_makes_no_whole_tokens_is_refused(parts, size):
    with pytest.raises(UserError, match=f"of {size[0]} x {size[1]} pixels: both sides must be multiples of 32"):
        parts.network(size=size)
    with pytest.raises(UserError, match="multiples of 32"):
        parts.network().grid(*size)


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("vit_x", {}, "unknown SAM model 'vit_x'"),
        ("vit_b", {"depht": 3}, r"\{'depht': 3\} do not suit vit_b"),
        ("vit_b", {"img_size": 64}, "img_size"),
        ("vit_b", {"num_heads": 0}, "do not suit"),
    ],
)
def test_what_it_cannot_be_built_of_is_refused(model, options, said):
    with pytest.raises(UserError, match=said):
        VocabularyNetwork(model, (64, 64), options)

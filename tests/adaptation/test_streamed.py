"""A transformer that is read block by block against the same one in memory."""

import weakref

import pytest
import timm
import torch
from safetensors.torch import save_file

from sak.adaptation import LoSA
from sak.adaptation.streamed import Streamed
from sak.errors import UserError

NAME = "vit_tiny_patch16_224"
OPTIONS = {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 4, "num_heads": 2}


@pytest.fixture
def vit():
    torch.manual_seed(0)
    vit = timm.create_model(NAME, num_classes=3, dynamic_img_size=True, **OPTIONS).eval()
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return vit


@pytest.fixture
def file(vit, tmp_path):
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    return tmp_path / "vit.safetensors"


@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
@pytest.mark.parametrize("indices", [None, [1, 3], [2]])
def test_it_is_the_transformer(vit, file, size, indices):
    images = torch.randn(2, 3, *size)
    streamed = Streamed(NAME, file, torch.float32, OPTIONS)
    expected = vit.forward_intermediates(images, indices=indices, norm=False, intermediates_only=True)
    found = streamed.forward_intermediates(images, indices)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    if indices is None:
        torch.testing.assert_close(streamed(images), expected[-1])


def test_several_files(vit, tmp_path):
    state = vit.state_dict()
    parts = [[key for key in state if key.startswith("blocks.1.")], [k for k in state if not k.startswith("blocks.1.")]]
    files = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for names, part in zip(parts, files, strict=True):
        save_file({name: state[name] for name in names}, part)
    images = torch.randn(1, 3, 64, 64)
    (expected,) = vit.forward_intermediates(images, indices=[3], norm=False, intermediates_only=True)
    torch.testing.assert_close(Streamed(NAME, files, torch.float32, OPTIONS)(images), expected)


def test_it_holds_its_embedding_alone_and_another_type_is_converted(vit, file):
    streamed = Streamed(NAME, file, torch.bfloat16, OPTIONS)
    embedding = sum(vit.get_parameter(name).numel() for name, _ in streamed.vit.named_parameters())
    assert (
        sum(parameter.numel() for parameter in streamed.parameters())
        == embedding
        < 0.5 * sum(parameter.numel() for parameter in vit.parameters())
    )
    found = streamed(torch.randn(1, 3, 64, 64))
    assert found.dtype == torch.bfloat16
    assert {weight.device.type for block in streamed._blocks for weight in block.parameters()} == {"meta"}


def test_one_block_is_held_at_a_time(file, monkeypatch):
    streamed, held, read = Streamed(NAME, file, torch.bfloat16, OPTIONS), [], Streamed._read

    def watched(self, *arguments):
        assert not any(weight() is not None for weight in held)
        weights = read(self, *arguments)
        held.extend(map(weakref.ref, weights.values()))
        return weights

    monkeypatch.setattr(Streamed, "_read", watched)
    streamed(torch.randn(1, 3, 64, 64))
    assert len(held) == 4 * 12


def test_losa_learns_beside_it(vit, file):
    images = torch.randn(2, 3, 64, 64)
    streamed, plain = LoSA(Streamed(NAME, file, torch.float32, OPTIONS), rank=4), LoSA(vit, rank=4)
    assert streamed.taps == plain.taps
    plain.side.load_state_dict(streamed.side.state_dict())
    for losa in (streamed, plain):
        for up in [p for n, p in losa.side.named_parameters() if "up" in n]:
            torch.nn.init.constant_(up, 0.1)
        sum(level.square().sum() for level in losa(images)).backward()
    for ours, theirs in zip(streamed.side.parameters(), plain.side.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in streamed.backbone.parameters())
    assert not streamed.backbone.training


def test_weights_are_loaded_strictly(vit, tmp_path):
    state, place = vit.state_dict(), tmp_path / "wrong.safetensors"

    def refused(sentence, weights, name=NAME, files=place, **options):
        save_file(weights, place)
        with pytest.raises(UserError, match=sentence):
            Streamed(name, files, options={**OPTIONS, **options})

    refused("lack blocks.2.attn.qkv.weight;", {k: v for k, v in state.items() if k != "blocks.2.attn.qkv.weight"})
    refused("hold blocks.9.x, which vit_tiny", {**state, "blocks.9.x": torch.ones(1)})
    refused(
        r"cls_token has the shape \[1, 1, 31\] in .*, but \[1, 1, 32\]", {**state, "cls_token": torch.ones(1, 1, 31)}
    )
    refused("lack blocks.4.norm1.weight", state, depth=5)
    refused("pos_embed has the shape", state, img_size=96)
    refused("stands in .* and in", state, files=[place, place])
    refused("there is no file nowhere", state, files="nowhere")
    refused("no model of timm", state, name="vit_minute")
    refused("no plain vision transformer", state, name="resnet18")
    refused("does not take the options", state, no_such=1)
    place.with_name("text").write_text("no weights")
    refused("is no safetensors file", state, files=place.with_name("text"))


def test_what_it_does_not_give(file):
    streamed = Streamed(NAME, file, options=OPTIONS)
    with pytest.raises(UserError, match="before any norm, and nothing else"):
        streamed.forward_intermediates(torch.zeros(1, 3, 64, 64), norm=True)
    with pytest.raises(UserError, match="64 × 70 pixels are no whole patches of 16"):
        streamed(torch.zeros(1, 3, 64, 70))

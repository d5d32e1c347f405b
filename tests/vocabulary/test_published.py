"""Weights under the names that published files have: of Vary-tiny, Vary-toy, GOT-OCR2.0 and SAM."""

import pytest
import safetensors.torch
import torch

from sak.errors import UserError
from sak.vocabulary.published import load_vary, start_from
from teachers.sam import image_encoder

# What lies beside the network in each of them, with tensors of the sizes of nobody's interest.
FORMATS = {
    "vary_tiny_600k": (
        "visual_encoder.",
        ["opt_proj.weight", "opt_proj.bias", "opt_model.model.decoder.embed_tokens.weight", "opt_model.lm_head.weight"],
    ),
    "vary_tiny": (
        "model.vision_tower_2.",
        ["model.mm_projector.weight", "model.decoder.layers.0.fc1.weight", "lm_head.weight"],
    ),
    "vary_toy": (
        "transformer.vision_tower_high.",
        [
            "transformer.vision_tower.vision_model.embeddings.class_embedding",
            "transformer.mm_projector.weight",
            "transformer.mm_projector_vary.weight",
            "transformer.wte.weight",
            "transformer.h.0.attn.c_attn.weight",
            "transformer.ln_f.weight",
            "lm_head.weight",
        ],
    ),
    "got": (
        "model.vision_tower_high.",
        [
            "model.mm_projector_vary.weight",
            "model.embed_tokens.weight",
            "model.layers.0.mlp.up_proj.weight",
            "model.norm.weight",
            "lm_head.weight",
        ],
    ),
}


def write(path, start, beside, network):
    """A file in a published format; torch's, or safetensors' by its suffix."""
    tensors = {f"{start}{name}": value.clone() for name, value in network.state_dict().items()}
    tensors |= {name: torch.ones(2, 3) for name in beside}
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save({"model": tensors} if start == "visual_encoder." else tensors, path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", FORMATS)
def test_each_format_loads_and_its_sizes_are_told_by_its_weights(parts, tmp_path, name, suffix):
    network = parts.network().eval()
    file = write(tmp_path / f"weights{suffix}", *FORMATS[name], network)
    loaded = load_vary(file, statistics="imagenet").eval()
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(loaded(images), network(images))
    assert loaded.settings["image_size"] == [64, 64]
    clip = load_vary(file)  # of which all of these are
    assert not torch.equal(clip(images), network(images))


def test_a_folder_of_shards(parts, tmp_path):
    network = parts.network().eval()
    tensors = {f"transformer.vision_tower_high.{name}": value for name, value in network.state_dict().items()}
    names = sorted(tensors)
    for number, part in enumerate((names[:20], names[20:])):
        torch.save({name: tensors[name] for name in part}, tmp_path / f"pytorch_model-{number}-of-2.bin")
    assert torch.equal(load_vary(tmp_path).net_3.weight, network.net_3.weight)


DAMAGES = {
    "lacks a weight": (lambda state, start: state.pop(f"{start}neck.0.weight"), "neck.0.weight"),
    "lacks a bias": (lambda state, start: state.pop(f"{start}blocks.1.norm1.bias"), "lacks blocks.1.norm1.bias"),
    "holds more": (lambda state, start: state.update({f"{start}neck.9": torch.ones(1)}), "unknown neck.9"),
    "holds a stranger": (lambda state, start: state.update(other=torch.ones(1)), "holds other, which is no part"),
    "of another shape": (lambda state, start: state.update({f"{start}net_3.weight": torch.ones(3)}), "net_3.weight"),
    "not finite": (
        lambda state, start: state[f"{start}net_3.weight"].fill_(torch.inf),
        "not finite in net_3.weight",
    ),
    "no network": (lambda state, start: state.pop(f"{start}net_3.weight"), "holds no vocabulary networks"),
    "two networks": (lambda state, start: state.update({"x.net_3.weight": torch.ones(1)}), "holds 2 vocabulary"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_anything_else_is_refused_in_one_sentence(parts, tmp_path, damage):
    start, beside = FORMATS["vary_toy"]
    file = write(tmp_path / "weights.pth", start, beside, parts.network())
    state = torch.load(file)
    change, said = DAMAGES[damage]
    change(state, start)
    torch.save(state, file)
    with pytest.raises(UserError, match=said) as caught:
        load_vary(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere.pth", "folder"])
def test_what_is_not_there(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=name):
        load_vary(tmp_path / name)


# --- starting from weights --------------------------------------------------------------------------------------------


def test_from_published_weights(parts, tmp_path):
    source, network = parts.network(), parts.network()
    said = start_from(network, write(tmp_path / "vary.pth", *FORMATS["vary_toy"], source))
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), source.parameters(), strict=True))
    assert "vary.pth" in said


def test_from_sam_behind_which_the_convolutions_are_new(parts, tmp_path):
    encoder, network = image_encoder("vit_b", img_size=64, **parts.OPTIONS), parts.network()
    tensors = {f"image_encoder.{name}": value for name, value in encoder.state_dict().items()}
    torch.save({**tensors, "mask_decoder.iou_token.weight": torch.ones(1)}, tmp_path / "sam.pth")
    before = network.net_2.weight.clone()
    said = start_from(network, tmp_path / "sam.pth")
    assert torch.equal(network.blocks[0].mlp.lin1.weight, encoder.blocks[0].mlp.lin1.weight)
    assert torch.equal(network.net_2.weight, before)
    assert "convolutions from random weights" in said


def test_from_a_bundle_of_ours(parts, tmp_path):
    model, network = parts.reader(), parts.network()
    model.save_pretrained(tmp_path / "bundle")
    start_from(network, tmp_path / "bundle")
    ours = model.vision.network.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in network.state_dict().items())


def test_positions_of_another_size_are_resized_as_on_the_fly(parts, tmp_path):
    source, larger = parts.network(), parts.network(size=(128, 128))
    for block in source.blocks:
        block.attn.rel_pos_h.data.normal_()
    start_from(larger, write(tmp_path / "small.pth", *FORMATS["vary_tiny"], source))
    images = torch.rand(1, 3, 128, 128)
    torch.testing.assert_close(larger(images), source(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"embed_dim": 64}, "has another shape of"), ({"depth": 4}, "lacks blocks.3"), ({"depth": 2}, "unknown blocks.2")],
)
def test_weights_of_another_network_are_refused(parts, tmp_path, options, said):
    file = write(tmp_path / "vary.pth", *FORMATS["vary_toy"], parts.network())
    with pytest.raises(UserError, match=said):
        start_from(parts.network(**options), file)


def test_weights_of_something_else_are_refused(parts, tmp_path):
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="neither a vocabulary network nor SAM's"):
        start_from(parts.network(), tmp_path / "other.pth")

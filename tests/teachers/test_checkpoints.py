"""What lies around weights is taken off and said; what is ambiguous is not guessed."""

import argparse
import dataclasses

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import teachers
from sak.errors import UserError
from teachers import weights
from teachers.checkpoints import of_network, opened

SPECS = {
    "dinov2": teachers.TeacherSpec(
        family="dinov2", model="vit_small_patch14_dinov2",
        options={"img_size": 28, "patch_size": 7, "embed_dim": 24, "depth": 5, "num_heads": 2},
    ),
    "clip": teachers.TeacherSpec(
        family="clip", model="ViT-B-16",
        options={"image_size": 32, "patch_size": 8, "width": 24, "layers": 2, "head_width": 12, "embed_dim": 8,
                 "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "quick_gelu": True},
    ),
    "sam": teachers.TeacherSpec(
        family="sam", model="vit_b",
        options={"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "window_size": 3,
                 "global_attn_indexes": [1], "out_chans": 8},
    ),
    "timm": teachers.TeacherSpec(
        family="timm", model="convnext_atto", options={"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}
    ),
}  # fmt: skip
SPECS = {name: dataclasses.replace(spec, levels=[0, 1]) for name, spec in SPECS.items()}
PREFIX = {"clip": "visual.", "sam": "image_encoder."}


def under(start, state):
    return {start + key: value for key, value in state.items()}


def noise(state):
    return {key: torch.randn(value.shape) for key, value in state.items()}


# What is around the weights, and what the report says of it.
WRAPPERS = {
    "model": (lambda state: {"model": state}, "model"),
    "state dict of a training": (
        lambda state: {"epoch": 3, "state_dict": under("module.", state), "optimizer": {"state": {0: noise(state)}}},
        "state_dict, module",
    ),
    "timm's training": (
        lambda state: {"arch": "x", "state_dict": noise(state), "state_dict_ema": state, "args": argparse.Namespace()},
        "state_dict_ema",
    ),
    "teacher beside student": (
        lambda state: {"student": under("module.backbone.", noise(state)), "teacher": under("backbone.", state)},
        "teacher, backbone",
    ),
    "DINOv2's training": (
        lambda state: {
            "model": {
                **under("student.backbone.", noise(state)),
                **under("teacher.backbone.", state),
                "teacher.dino_head.mlp.0.weight": torch.ones(2, 2),
            },
            "iteration": 4,
        },
        "model, teacher.backbone",
    ),
    "compiled": (lambda state: under("_orig_mod.", state), "_orig_mod"),
    "compiled in part": (
        lambda state: {key.replace("blocks.", "blocks._orig_mod.").replace("stages.", "stages._orig_mod."): value
                       for key, value in state.items()},
        "_orig_mod",
    ),
    "Lightning": (
        lambda state: {
            "pytorch-lightning_version": "2.4", "state_dict": {**under("model.", state), "loss.scale": torch.ones(1)}
        },
        "state_dict, model",
    ),
    "sharded": (lambda state: under("_fsdp_wrapped_module.", state), "_fsdp_wrapped_module"),
    "under a name of its own": (lambda state: {"net": state, "optimizer": {"m": noise(state)}}, "net"),
    "in a larger network": (
        lambda state: {**under("trunk.features.", state), "neck.weight": torch.ones(3)}, "trunk.features",
    ),
    "several layers of it": (
        lambda state: {"state_dict": under("module._orig_mod.model.", state)}, "state_dict, _orig_mod, module, model",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
@pytest.mark.parametrize("family", sorted(SPECS))
@torch.no_grad()
def test_what_is_around_weights_is_taken_off_and_said(family, wrapper, tmp_path):
    source = teachers.build("source", dataclasses.replace(SPECS[family], weights="random"))
    for parameter in source.parameters():
        nn.init.normal_(parameter, std=0.2)
    state = under(PREFIX.get(family, ""), source.backbone.state_dict())
    wrap, said = WRAPPERS[wrapper]
    torch.save(wrap(state), tmp_path / "weights.pth")
    teacher = teachers.build("t", dataclasses.replace(SPECS[family], weights=str(tmp_path / "weights.pth")))
    images = torch.rand(1, 3, 32, 32)
    for ours, theirs in zip(teacher(images), source(images), strict=True):
        assert torch.equal(ours, theirs)
    assert f"weights.pth; unwrapped: {said}" in str(teacher.report)
    beside = {"DINOv2's training": "student, teacher", "Lightning": "loss", "in a larger network": "neck"}.get(wrapper)
    assert (f"left out: {beside} (" in str(teacher.report)) == (beside is not None)


def test_nothing_around_is_not_spoken_of(tmp_path):
    source = teachers.build("t", dataclasses.replace(SPECS["dinov2"], weights="random"))
    torch.save(source.backbone.state_dict(), tmp_path / "weights.pth")
    teacher = teachers.build("t", dataclasses.replace(SPECS["dinov2"], weights=str(tmp_path / "weights.pth")))
    assert str(teacher.report) == f"{len(source.backbone.state_dict())} tensors of {tmp_path / 'weights.pth'}"


@pytest.mark.parametrize("family", ["clip", "sam"])
@torch.no_grad()
def test_a_tower_alone_without_the_name_that_the_whole_model_gives_it(family, tmp_path):
    source = teachers.build("source", dataclasses.replace(SPECS[family], weights="random"))
    for start in ("", "module.encoder."):
        save_file(under(start, source.backbone.state_dict()), tmp_path / "tower.safetensors")
        teacher = teachers.build("t", dataclasses.replace(SPECS[family], weights=str(tmp_path / "tower.safetensors")))
        images = torch.rand(1, 3, 32, 32)
        assert torch.equal(teacher(images)[1], source(images)[1])


@pytest.mark.parametrize("place", [lambda block: (block // 2, block), lambda block: (block // 2, block % 2)])
@torch.no_grad()
def test_blocks_in_chunks_are_numbered_through(place, tmp_path):
    """As DINOv2's training writes them: five blocks in chunks of two; it numbers them through, others within chunks."""
    source = teachers.build("source", dataclasses.replace(SPECS["dinov2"], weights="random"))
    chunked = {}
    for key, value in source.backbone.state_dict().items():
        start, _, rest = key.partition(".")
        if start == "blocks":
            block, _, rest = rest.partition(".")
            key = "blocks.{}.{}.{}".format(*place(int(block)), rest)
        chunked[f"backbone.{key}"] = value
    torch.save({"teacher": chunked}, tmp_path / "weights.pth")
    spec = dataclasses.replace(SPECS["dinov2"], weights=str(tmp_path / "weights.pth"), levels=[1, 4])
    teacher, images = teachers.build("t", spec), torch.rand(1, 3, 28, 28)
    source.levels = [1, 4]
    for ours, theirs in zip(teacher(images), source(images), strict=True):
        assert torch.equal(ours, theirs)
    assert "unwrapped: teacher, blocks in chunks, backbone" in str(teacher.report)


def test_blocks_of_two_numbers_that_are_the_networks_own_stay():
    """EfficientNets count blocks within stages."""
    net = timm.create_model("efficientnet_b0", num_classes=0)
    state = under("model.", net.state_dict())
    assert of_network(opened(state, "file"), net.state_dict(), "", "file").keys() == net.state_dict().keys()


@torch.no_grad()
def test_facebooks_own_names_in_its_own_wrapper(tmp_path):
    """Registers and the masked token have names that timm converts; positions leave the class token's out."""
    options = {**SPECS["dinov2"].options}
    spec = teachers.TeacherSpec(family="dinov2", model="vit_small_patch14_reg4_dinov2", levels=[4], options=options)
    source = teachers.build("source", dataclasses.replace(spec, weights="random"))
    for parameter in source.parameters():
        nn.init.normal_(parameter, std=0.2)
    state = dict(source.backbone.state_dict())
    state["register_tokens"] = state.pop("reg_token")
    row = torch.randn(1, 1, 24)  # of the class token, which timm adds to the token itself
    state["pos_embed"] = torch.cat([row, state["pos_embed"]], dim=1)
    state["cls_token"] = state["cls_token"] - row
    state["mask_token"] = torch.zeros(1, 24)
    torch.save({"teacher": under("backbone.", state), "iteration": 7}, tmp_path / "weights.pth")
    teacher = teachers.build("t", dataclasses.replace(spec, weights=str(tmp_path / "weights.pth")))
    images = torch.rand(1, 3, 28, 28)
    torch.testing.assert_close(teacher(images)[0], source(images)[0], rtol=1e-4, atol=1e-5)
    assert "unwrapped: teacher, backbone; left out: mask_token (1)" in str(teacher.report)


def test_a_converter_sees_original_names_without_what_is_around_them(tmp_path):
    """ConvNeXt's own names are foreign to timm's network; what is around all of them is known by its name alone."""
    net = teachers.build("t", dataclasses.replace(SPECS["timm"], weights="random")).backbone
    original = {}
    for key, value in net.state_dict().items():
        for new, old in (
            ("stem.", "downsample_layers.0."), ("stages.0.blocks", "stages.0"), ("stages.1.blocks", "stages.1"),
            ("stages.2.blocks", "stages.2"), ("stages.3.blocks", "stages.3"), ("conv_dw", "dwconv"),
            ("mlp.fc1", "pwconv1"), ("mlp.fc2", "pwconv2"), ("stages.1.downsample", "downsample_layers.1"),
            ("stages.2.downsample", "downsample_layers.2"), ("stages.3.downsample", "downsample_layers.3"),
            ("head.norm", "norm"),
        ):  # fmt: skip
            key = key.replace(new, old)
        original[key] = value
    torch.save({"model": under("module.", original), "epoch": 1}, tmp_path / "weights.pth")
    teacher = teachers.build("t", dataclasses.replace(SPECS["timm"], weights=str(tmp_path / "weights.pth")))
    images = torch.rand(1, 3, 64, 64)
    source = teachers.build("t", dataclasses.replace(SPECS["timm"], weights="random"))
    assert torch.equal(teacher(images)[1], source(images)[1])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            lambda state: {**under("left.", state), **under("right.", state)},
            "holds the network twice, as left. and as right.",
        ),
        (lambda state: {"one": state, "two": state}, r"holds several sets of tensors \(one, two\)"),
        (lambda state: {"epoch": 3}, "is not a flat dict of tensors"),
        (lambda state: [state], "is not a flat dict of tensors"),
        (lambda state: {}, "is not a flat dict of tensors"),
        (lambda state: {"model": {}}, "is not a flat dict of tensors"),
        (
            lambda state: {**state, "_orig_mod.norm.weight": torch.ones(24)},
            "holds several tensors of one name without _orig_mod",
        ),
        (
            lambda state: under("model.", {key: value for key, value in state.items() if "blocks.3" not in key}),
            "lacks blocks.3.norm1.weight",
        ),
        (lambda state: {**state, "extra.weight": torch.ones(1)}, "holds unknown extra.weight"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_refused(content, sentence, tmp_path):
    source = teachers.build("t", dataclasses.replace(SPECS["dinov2"], weights="random"))
    torch.save(content(dict(source.backbone.state_dict())), tmp_path / "weights.pth")
    with pytest.raises(UserError, match=f"teacher t: .*weights.pth {sentence}"):
        teachers.build("t", dataclasses.replace(SPECS["dinov2"], weights=str(tmp_path / "weights.pth")))


def test_a_teacher_of_ones_own_gets_the_same(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    torch.save({"state_dict": under("model.", net.state_dict())}, tmp_path / "weights.pth")
    state = weights.read(tmp_path / "weights.pth", "mine")
    other = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    report = weights.load(other, state, "weights.pth", "mine")
    assert torch.equal(other[2].weight, net[2].weight)
    assert str(report) == "9 tensors of weights.pth; unwrapped: state_dict, model"


# --- what is no weight ------------------------------------------------------------------------------------------------

NOT_FINITE = "infinite values or NaN"
FAULTS = {
    "NaN": (lambda value: torch.where(torch.arange(len(value)) == 1, torch.nan, value), NOT_FINITE),
    "infinite": (lambda value: value / 0, NOT_FINITE),
    "too large": (lambda value: value.double() + 1e60, NOT_FINITE),
    "integers": (lambda value: value.to(torch.int64), "int64"),
    "bytes": (lambda value: value.to(torch.uint8), "uint8"),
    "booleans": (lambda value: value > 0, "bool"),
    "complex": (lambda value: value.to(torch.complex64), "complex64"),
    "quantised": (lambda value: torch.quantize_per_tensor(value.detach(), 0.1, 0, torch.qint8), "qint8"),
    "sparse": (lambda value: value.detach().to_sparse(), "sparse numbers"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("fault", sorted(FAULTS))
@pytest.mark.parametrize("family", sorted(SPECS))
def test_what_is_no_finite_real_number_is_refused_and_the_first_tensor_named(family, fault, tmp_path):
    source = teachers.build("t", dataclasses.replace(SPECS[family], weights="random"))
    state = under(PREFIX.get(family, ""), source.backbone.state_dict())
    change, said = FAULTS[fault]
    faulty = [key for key in state if key.endswith((".bias", "norm1.weight", "ln_1.weight"))][3:]
    torch.save({key: change(value) if key in faulty else value for key, value in state.items()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=rf"teacher t: .*w\.pth holds {said} in {faulty[0]}[,;]"):
        teachers.build("t", dataclasses.replace(SPECS[family], weights=str(tmp_path / "w.pth")))


@torch.no_grad()
def test_what_is_left_out_may_hold_anything_and_half_precision_is_fine(tmp_path):
    source = teachers.build("t", dataclasses.replace(SPECS["clip"], weights="random"))
    state = {key: value.half() for key, value in under("visual.", source.backbone.state_dict()).items()}
    state |= {"attn_mask": torch.full((4, 4), -torch.inf), "context_length": torch.tensor(4)}
    torch.save(state, tmp_path / "w.pth")
    teacher = teachers.build("t", dataclasses.replace(SPECS["clip"], weights=str(tmp_path / "w.pth")))
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(teacher(images)[1], source(images)[1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("family", sorted(SPECS))
@pytest.mark.parametrize("size", [(), (0,)])
def test_tensors_without_a_dimension_or_a_value_are_named(family, size, tmp_path):
    source = teachers.build("t", dataclasses.replace(SPECS[family], weights="random"))
    state = {key: torch.zeros(size) for key in under(PREFIX.get(family, ""), source.backbone.state_dict())}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"teacher t: .*w\.pth (does not fit: .*shape|is not a checkpoint)"):
        teachers.build("t", dataclasses.replace(SPECS[family], weights=str(tmp_path / "w.pth")))

import math

import pytest
import timm
import torch
from torch import nn

import teachers
from sak import Student
from sak.adaptation import LoSA
from sak.errors import UserError

SPEC = {
    "family": "dinov2",
    "model": "vit_small_patch14_dinov2",
    "weights": "random",
    "levels": [1, 3],
    "options": {"img_size": 64, "patch_size": 16, "embed_dim": 24, "depth": 4, "num_heads": 2},
}


def vit(size=64, **options):
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=size, dynamic_img_size=True, embed_dim=24, depth=4, num_heads=2, **options
    )


def student():
    options = {"patch_size": 16, "embed_dim": 24, "depth": 4, "num_heads": 2}
    return Student("vit_tiny_patch16_384", [64, 64], {"semseg": 3}, {}, levels=[1, 3], stem_options=options)


def moved(losa):
    """With no weight at 0 any more."""
    with torch.no_grad():
        for weight in losa.side.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return losa


def axis_mixing(z, mixing, axis):
    """W_up GELU(W_down ·) along an axis, place by place."""
    lines = z.movedim(axis, -1)
    return (torch.nn.functional.gelu(lines @ mixing.down.T) @ mixing.up).movedim(-1, axis)


def test_it_follows_the_equations():
    losa = moved(LoSA(vit(), rank=4, taps=range(4)))
    images = torch.rand(2, 3, 64, 64)
    blocks = losa.backbone.forward_intermediates(images, norm=False, intermediates_only=True)
    s = 0
    for b, mixer, out in zip(blocks, losa.side.mixers, losa(images), strict=True):
        b = b.permute(0, 2, 3, 1)
        z = b + s
        h = torch.nn.functional.gelu(mixer.norm(z) @ mixer.down.weight.T) @ mixer.up.weight.T
        rows, columns = mixer.tokens
        along = axis_mixing(z + h, columns, 2)
        g = h + along + axis_mixing(z + h + along, rows, 1)
        s = s + g
        torch.testing.assert_close(out, (b + s).permute(0, 3, 1, 2))


@pytest.mark.parametrize("size", [(64, 64), (96, 48)])
@pytest.mark.parametrize("kind", ["timm", "teacher", "scales", "student"])
def test_it_starts_as_exactly_the_backbone(kind, size):
    images = torch.rand(2, 3, *size)
    if kind == "timm":
        backbone = vit().eval()
        expected = backbone.forward_intermediates(images, indices=[0, 1, 2, 3], norm=False, intermediates_only=True)
    elif kind == "student":
        backbone = student()
        expected = backbone.eval().features(images)
    else:
        backbone = teachers.build("a", {**SPEC, "scales": [1, 2] if kind == "scales" else [1]})
        expected = backbone(images)
    losa = LoSA(backbone, rank=4)
    maps = losa(images)
    assert len(maps) == len(expected)
    for level, wanted in zip(maps, expected, strict=True):
        assert torch.equal(level, wanted)
    assert tuple(maps[0].shape[-2:]) == losa.grid(*size)
    assert maps[0].shape[1] == losa.width


def test_only_the_side_network_learns_and_from_the_first_step_on():
    losa = LoSA(vit(), rank=4).train()
    assert not losa.backbone.training
    sum(level.square().mean() for level in losa(torch.rand(2, 3, 64, 64))).backward()
    assert all(weight.grad is None for weight in losa.backbone.parameters())
    assert all(weight.grad.any() for name, weight in losa.side.named_parameters() if "up" in name)
    learned = sum(weight.numel() for weight in losa.parameters() if weight.requires_grad)
    assert learned == sum(weight.numel() for weight in losa.side.parameters())


def nodes(tensor):
    """All nodes of its graph."""
    found, waiting = set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [following for following, _ in node.next_functions]
    return found


def test_no_graph_leads_into_the_backbone():
    losa = LoSA(vit(), rank=4)
    (level, *_) = reversed(losa(torch.rand(2, 3, 64, 64)))
    learned = {id(weight) for weight in losa.side.parameters()}
    leaves = [node.variable for node in nodes(level) if hasattr(node, "variable")]
    assert leaves
    assert {id(leaf) for leaf in leaves} <= learned
    assert not any("Attention" in node.name() or "Convolution" in node.name() for node in nodes(level))


def kept_for_the_backward_pass(model, images):
    """Bytes of what autograd keeps of a forward pass, without the weights."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        maps = model(images)
    assert maps[-1].requires_grad
    return sum(size for size, _ in kept.values())


def deep(depth):
    return timm.create_model("vit_tiny_patch16_224", img_size=64, embed_dim=24, depth=depth, num_heads=2)


def test_memory_does_not_grow_with_the_depth_of_the_backbone():
    images = torch.rand(4, 3, 64, 64)
    shallow, high = (LoSA(deep(depth), rank=4, taps=[depth - 1]) for depth in (2, 8))
    assert kept_for_the_backward_pass(shallow, images) == kept_for_the_backward_pass(high, images)
    high.backbone.requires_grad_(True)  # even so: it is not frozen by its weights alone
    assert kept_for_the_backward_pass(shallow, images) == kept_for_the_backward_pass(high, images)


def test_the_weights_along_an_axis_are_resized_to_the_image():
    """On maps that do not change along an axis, the sums that W_down makes are those of the kept length."""
    losa = moved(LoSA(vit(), rank=4))
    mixing = losa.side.mixers[0].tokens[0]
    for length in (3, 4, 9):
        out = mixing(torch.ones(1, length, 2, 5), axis=1)
        assert out.shape == (1, length, 2, 5)
        if length > mixing.down.shape[1] // 2:
            wanted = torch.nn.functional.interpolate(mixing.up.detach()[None], size=length, mode="linear")[0]
            hidden = torch.nn.functional.gelu(mixing.down.sum(1))
            torch.testing.assert_close(out[0, :, 0, 0], hidden @ wanted, rtol=0.2, atol=0.2)


def test_known_maps_stand_for_the_backbone():
    losa = moved(LoSA(teachers.build("a", SPEC), rank=4))
    images = torch.rand(2, 3, 64, 96)
    known = losa.backbone(images)
    for level, wanted in zip(losa(images, maps=known), losa(images), strict=True):
        assert torch.equal(level, wanted)


def test_chosen_levels_of_more_taps():
    losa = moved(LoSA(vit(), rank=4, taps=[0, 1, 3], levels=[3]))
    images = torch.rand(1, 3, 64, 64)
    (level,) = losa(images)
    losa.levels = [0, 1, 3]
    assert torch.equal(level, losa(images)[2])


def test_clips_of_any_length():
    losa = moved(LoSA(vit(), rank=4, frames=4))
    clips = torch.rand(2, 4, 3, 64, 64)
    maps = losa(clips)
    assert maps[0].shape == (2, 4, 24, 4, 4)
    assert losa(clips[:, :3])[0].shape == (2, 3, 24, 4, 4)
    # Through time alone do frames know of each other.
    other = clips.clone()
    other[:, 0] = 0
    assert not torch.equal(losa(other)[-1][:, 3], maps[-1][:, 3])
    for mixer in losa.side.mixers:
        nn.init.zeros_(mixer.tokens[0].up)
    assert torch.equal(losa(other)[-1][:, 3], losa(clips)[-1][:, 3])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"rank": 25}, "rank is 25, but must be from 1 to 24"),
        ({"rank": 0}, "rank is 0"),
        ({"taps": [1, 4]}, r"taps are \[1, 4\], but must be increasing, and the backbone has 4 blocks, 0 to 3"),
        ({"taps": [3, 1]}, r"taps are \[3, 1\], but must be increasing"),
        ({"taps": [-1]}, r"taps are \[-1\]"),
        ({"taps": []}, r"taps are \[\]"),
        ({"levels": [2], "taps": [1, 3]}, r"the level 2 is none of the taps \[1, 3\]"),
        ({"frames": 0}, "frames is 0"),
    ],
)
def test_wrong_arguments(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        LoSA(vit(), **arguments)


@pytest.mark.parametrize(
    ("backbone", "sentence"),
    [
        (nn.Linear(3, 3), "class Linear does not give intermediate features"),
        (timm.create_model("resnet10t"), "have the widths"),
        (teachers.build("a", SPEC), r"taps are \[2\], .*, and the backbone has the levels \[1, 3\]"),
    ],
)
def test_wrong_backbones(backbone, sentence):
    with pytest.raises(UserError, match=sentence):
        LoSA(backbone, rank=4, taps=[2] if isinstance(backbone, teachers.Teacher) else None)


def test_parameters_are_few():
    """Of a ViT-B at 512 x 512, below 2 % (in fact 0.06 %)."""
    with torch.device("meta"):
        backbone = timm.create_model("vit_base_patch16_224", img_size=512, num_classes=0)
        losa = LoSA(backbone, rank=8)
    trained = sum(weight.numel() for weight in losa.side.parameters())
    width, side = 768, 32
    assert trained == 4 * (2 * width + 2 * 8 * width + 2 * 2 * 8 * side)
    assert trained < 0.02 * sum(weight.numel() for weight in backbone.parameters())
    assert math.isclose(trained / 86e6, 0.0006, rel_tol=0.2)

"""The family `timm`: transformers by block, convolutional networks by stage, timm's files and originals."""

import dataclasses

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

import teachers
from sak import Student
from sak.distillation import losses
from sak.errors import UserError

VIT = {"embed_dim": 24, "depth": 3, "num_heads": 2}
MODELS = {  # model: its levels, options
    "vit_base_patch16_siglip_224": ([0, 2], {**VIT, "patch_size": 8, "img_size": 32}),
    "vit_small_patch16_dinov3": ([0, 2], {**VIT, "embed_dim": 32, "patch_size": 8, "img_size": 32}),
    "eva02_tiny_patch14_224": ([1, 2], {**VIT, "embed_dim": 32, "patch_size": 8, "img_size": 32}),
    "convnext_atto": ([0, 1, 3], {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}),
    "resnet18": ([1, 2, 4], {}),
}
CNN = teachers.TeacherSpec(
    family="timm", model="convnext_atto", weights="random", levels=[0, 1, 2, 3], options=MODELS["convnext_atto"][1]
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def spec_of(model, **changes):
    levels, options = MODELS[model]
    return teachers.TeacherSpec(family="timm", model=model, levels=levels, options=options, **changes)


def library_model(model, **options):
    net = timm.create_model(model, **{**MODELS.get(model, ([], {}))[1], **options})
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    return net.eval()


@pytest.mark.parametrize("model", sorted(MODELS))
@torch.no_grad()
def test_features_are_timms_own(model, tmp_path):
    """Forward hooks on the library's blocks or stages see what the teacher gives."""
    net = library_model(model, num_classes=5)
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, tmp_path / "w.safetensors")
    teacher = teachers.build("t", spec_of(model, weights=str(tmp_path / "w.safetensors")))
    images = torch.rand(2, 3, 32, 32)

    levels, seen = MODELS[model][0], {}
    for level in levels:
        module = net.blocks[level] if "patch" in model else net.get_submodule(net.feature_info[level]["module"])
        module.register_forward_hook(lambda _m, _i, out, level=level: seen.__setitem__(level, out))
    mean, std = (torch.tensor(net.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    net((images - mean) / std)
    for position, (ours, level) in enumerate(zip(teacher(images), levels, strict=True)):
        theirs = seen[level]
        if theirs.ndim == 3:  # tokens, behind those of the class and the registers
            theirs = theirs[:, -16:].transpose(1, 2).unflatten(2, (4, 4))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        assert ours.shape == (2, teacher.dims[position], *teacher.grid(32, 32, position))
    assert teacher.report.left_out == [] or all("head" in key or "fc" in key for key in teacher.report.left_out)


def test_statistics_are_those_of_the_weights():
    assert teachers.build("t", spec_of("vit_base_patch16_siglip_224", weights="random")).mean.flatten()[0] == 0.5
    own = teachers.build("t", spec_of("convnext_atto", weights="random"))
    assert own.mean.flatten().tolist() == pytest.approx(IMAGENET_DEFAULT_MEAN)
    assert own.std.flatten().tolist() == pytest.approx(IMAGENET_DEFAULT_STD)


@torch.no_grad()
def test_a_convolutional_teacher_has_widths_and_grids_by_stage_and_any_size():
    teacher = teachers.build("t", CNN)
    features = teacher(torch.rand(1, 3, 70, 100))  # seen at 64 x 96, multiples of the last stage's 32
    assert teacher.dims == [8, 16, 24, 32]
    assert [tuple(level.shape[-2:]) for level in features] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert [teacher.grid(70, 100, level) for level in range(4)] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    both = teachers.build("t", dataclasses.replace(CNN, scales=[1, 2]))
    assert both.dims == [16, 32, 48, 64]
    assert [tuple(level.shape[1:]) for level in both(torch.rand(1, 3, 64, 96))] == [
        (16, 16, 24), (32, 8, 12), (48, 4, 6), (64, 2, 3)
    ]  # fmt: skip


def test_a_student_learns_from_a_convolutional_teacher():
    """Aligners have each level's width; the loss brings each level's grid and the student's together."""
    committee = teachers.Committee({"cnn": CNN})
    student = Student(
        stem="vit_tiny_patch16_384",
        stem_options={"patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2},
        image_size=[32, 32],
        levels=[0, 1, 2, 3],
        tasks={},
        teachers=committee.dims,
    )
    images = torch.rand(2, 3, 32, 32)
    terms = losses.distillation_terms(student(images).paths, committee(images))
    assert sorted(terms) == [f"cnn/{level}" for level in range(4)]
    losses.total(terms).backward()
    gradients = [p.grad for name, p in student.named_parameters() if "align" in name]
    assert gradients
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


@torch.no_grad()
def test_a_fixed_size_sees_every_image_squeezed_to_it():
    spec = teachers.TeacherSpec(
        family="timm", model="beit_base_patch16_224", weights="random", levels=[1],
        options={**VIT, "depth": 2, "patch_size": 8, "img_size": 32},
    )  # fmt: skip
    teacher = teachers.build("t", spec)
    assert teacher.resized(100, 40) == (32, 32)
    assert [tuple(level.shape) for level in teacher(torch.rand(1, 3, 100, 40))] == [(1, 24, 4, 4)]
    with pytest.raises(UserError, match=r"fixed size; set options\.img_size"):
        teachers.build("t", dataclasses.replace(spec, input_size=64))


@torch.no_grad()
def test_original_files_of_dinov2(tmp_path):
    """Facebook's names: a mask token, registers apart from the class token's position, SwiGLU as w12 and w3."""
    options = {**VIT, "patch_size": 7, "img_size": 28}
    net = timm.create_model("vit_giant_patch14_reg4_dinov2", num_classes=0, **options).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    original = {"mask_token": torch.zeros(1, 24)}
    for key, value in net.state_dict().items():
        key = key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3").replace("reg_token", "register_tokens")
        original[key] = value
    place = torch.randn(1, 1, 24)
    original["cls_token"] = original["cls_token"] - place
    original["pos_embed"] = torch.cat([place, original["pos_embed"]], dim=1)
    torch.save(original, tmp_path / "dinov2_vitg14_reg4_pretrain.pth")

    spec = teachers.TeacherSpec(
        family="dinov2", model="vit_giant_patch14_reg4_dinov2.lvd142m", levels=[0, 2], options=options,
        weights=str(tmp_path / "dinov2_vitg14_reg4_pretrain.pth"),
    )  # fmt: skip
    teacher = teachers.build("t", spec)
    images = torch.rand(1, 3, 28, 28)
    expected = net.forward_intermediates((images - teacher.mean) / teacher.std, indices=[0, 2], intermediates_only=True)
    for ours, theirs in zip(teacher(images), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert teacher.report.left_out == ["mask_token"]

    del original["blocks.1.mlp.w3.bias"]
    torch.save(original, spec.weights)
    with pytest.raises(UserError, match=r"lacks blocks\.1\.mlp\.fc2\.bias"):
        teachers.build("t", spec)


def test_positions_of_another_size_are_resized_and_reported(tmp_path):
    options = {**VIT, "patch_size": 7}
    net = timm.create_model("vit_small_patch14_dinov2", num_classes=3, img_size=56, **options)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    spec = teachers.TeacherSpec(
        family="dinov2", model="vit_small_patch14_dinov2", levels=[2], weights=str(tmp_path / "w.safetensors"),
        options={**options, "img_size": 28},
    )  # fmt: skip
    report = teachers.build("t", spec).report
    assert report.resized == ["pos_embed"]
    assert sorted(report.left_out) == ["head.bias", "head.weight"]
    assert str(report) == f"{report.loaded} tensors of {spec.weights}; left out: head (2); resized: pos_embed"


def test_bfloat16():
    full = teachers.build("t", dataclasses.replace(CNN, levels=[0]))
    half = teachers.build("t", dataclasses.replace(CNN, levels=[0], dtype="bfloat16"))
    half.backbone.load_state_dict(full.backbone.state_dict())
    assert all(parameter.dtype == torch.bfloat16 for parameter in half.parameters())
    images = torch.rand(1, 3, 32, 32)
    (one,), (two,) = full(images), half(images)
    assert two.dtype == torch.float32
    assert 0 < (one - two).norm() / one.norm() < 0.02
    with pytest.raises(UserError, match="'float16'; it can be float32 or bfloat16"):
        teachers.build("t", dataclasses.replace(CNN, dtype="float16"))


def test_mistakes(tmp_path):
    build = lambda **changes: teachers.build("t", dataclasses.replace(CNN, **changes))  # noqa: E731
    with pytest.raises(UserError, match=r"unknown timm model 'convnext_ato'; did you mean convnext_atto\?"):
        build(model="convnext_ato")
    with pytest.raises(UserError, match=r"weights of vit_base_patch16_siglip_224 'v2_webly'; did you mean v2_w"):
        build(model="vit_base_patch16_siglip_224.v2_webly")
    with pytest.raises(UserError, match=r"levels \[0, 4\] .* 4 blocks or stages"):
        build(levels=[0, 4])
    with pytest.raises(UserError, match=r"20 pixels is smaller than the 32 of one patch"):
        teachers.build("t", CNN)(torch.rand(1, 3, 64, 20))
    torch.save(library_model("resnet18").state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(UserError, match=r"resnet\.pth (lacks|is not a checkpoint)"):
        build(weights=str(tmp_path / "resnet.pth"))


@torch.no_grad()
def test_s2_of_a_fixed_grid_matches_pooling_per_level():
    """Each level is pooled to its own grid: for a teacher of stages, the second half is the stitched map's mean."""
    plain = teachers.build("t", CNN)
    images = torch.rand(1, 3, 32, 32)
    both = teachers.MultiScale(plain, [1, 2])(images)
    big = F.interpolate(images, (64, 64), mode="bicubic")
    corner = plain(big[:, :, 32:, :32])  # the lower left tile
    for level, width in enumerate(plain.dims):
        half = both[level].shape[-1] // 2
        if half:
            torch.testing.assert_close(
                both[level][:, width:, half:, :half], F.avg_pool2d(corner[level], 2), rtol=1e-4, atol=1e-5
            )

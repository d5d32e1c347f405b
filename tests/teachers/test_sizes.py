"""How an image gets to the size that a teacher sees: whole patches, all of the image, nothing aliased."""

import dataclasses

import pytest
import timm
import torch
import torch.nn.functional as F
from segment_anything.utils.transforms import ResizeLongestSide
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

import teachers
from sak.errors import UserError
from teachers import MultiScale, sam

VIT = {"img_size": 28, "patch_size": 7, "embed_dim": 24, "depth": 3, "num_heads": 2}
DINOV2 = teachers.TeacherSpec(
    family="dinov2", model="vit_small_patch14_dinov2", weights="random", levels=[0, 2], options=VIT
)
SAM = teachers.TeacherSpec(
    family="sam", model="vit_b", weights="random", levels=[0, 1],
    options={"img_size": 48, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "window_size": 3,
             "global_attn_indexes": [1], "out_chans": 8},
)  # fmt: skip
CLIP = teachers.TeacherSpec(
    family="clip", model="ViT-B-16", weights="random", levels=[0],
    options={"image_size": 32, "patch_size": 8, "width": 24, "layers": 1, "head_width": 12, "embed_dim": 8},
)  # fmt: skip
CNN = teachers.TeacherSpec(
    family="timm", model="convnext_atto", weights="random", levels=[0, 3],
    options={"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
)  # fmt: skip


def build(spec, **changes):
    return teachers.build("t", dataclasses.replace(spec, **changes))


@torch.no_grad()
def test_cropped_as_the_published_code_does():
    """There timm's network is built for the image's own size: its patches leave the rest on the right and below out."""
    teacher = build(DINOV2, fit="crop")
    for parameter in teacher.parameters():
        nn.init.normal_(parameter, std=0.2)
    published = timm.create_model(DINOV2.model, **{**VIT, "img_size": (34, 61)}, num_classes=0, global_pool="").eval()
    published.load_state_dict(checkpoint_filter_fn(dict(teacher.backbone.state_dict()), published))
    images = torch.rand(2, 3, 34, 61)
    expected = published.forward_intermediates(
        (images - teacher.mean) / teacher.std, indices=[0, 2], norm=False, intermediates_only=True
    )
    for ours, theirs in zip(teacher(images), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert teacher.grid(34, 61) == (4, 8)
    assert build(DINOV2).grid(34, 61) == (5, 9)


@pytest.mark.parametrize(
    ("spec", "size", "seen"),
    [
        (DINOV2, (34, 61), (28, 56)),
        (CLIP, (39, 32), (32, 32)),
        (dataclasses.replace(SAM, input_size="native"), (55, 50), (48, 48)),
        (CNN, (70, 95), (64, 64)),
    ],
)
@torch.no_grad()
def test_cropped_is_the_corner_alone(spec, size, seen):
    teacher, images = build(spec, fit="crop"), torch.rand(1, 3, *size)
    corner = teacher(images[:, :, : seen[0], : seen[1]])
    for level, (ours, theirs) in enumerate(zip(teacher(images), corner, strict=True)):
        assert torch.equal(ours, theirs)
        assert tuple(ours.shape[-2:]) == teacher.grid(*size, level)


@torch.no_grad()
def test_an_s2_teacher_crops_what_its_teacher_crops():
    plain, images = build(DINOV2, fit="crop"), torch.rand(1, 3, 34, 61)
    both = MultiScale(plain, [1, 2])
    for ours, theirs in zip(both(images), both(images[:, :, :28, :56]), strict=True):
        assert torch.equal(ours, theirs)


def test_sizes_of_full_networks_at_the_papers_images():
    """DINOv2 at 512 sees 518, or cut to 504 (published); SAM at NYUD's 448 x 576 sees whole patches."""
    with torch.device("meta"):
        dinov2 = teachers.TeacherSpec(family="dinov2", model="vit_base_patch14_dinov2", weights="random", levels=[0])
        resized, cropped = build(dinov2), build(dinov2, fit="crop")
        large = teachers.build("t", teachers.TeacherSpec(family="sam", model="vit_b", weights="random", levels=[0]))
    assert (resized.resized(512, 512), resized.grid(512, 512)) == ((518, 518), (37, 37))
    assert (cropped.resized(512, 512), cropped.grid(512, 512)) == ((504, 504), (36, 36))
    assert (large.resized(448, 576), large.grid(448, 576)) == ((800, 1024), (50, 64))


@pytest.mark.parametrize("size", [(448, 576), (375, 500), (500, 333), (20, 32), (48, 48), (31, 17)])
def test_what_sam_shows_of_an_image_is_the_image_and_nothing_else(size):
    """The map that is cropped covers what was resized to the pixel, and no patch of it shows padding."""
    teacher = build(SAM)
    h, w = teacher.grid(*size)
    inputs = teacher.normalise(torch.rand(1, 3, *size))
    assert tuple(inputs.shape[-2:]) == (8 * h, 8 * w)
    library = ResizeLongestSide.get_preprocess_shape(*size, 48)  # rounded to pixels instead of patches
    assert max(abs(ours - theirs) for ours, theirs in zip(inputs.shape[-2:], library, strict=True)) <= 4
    assert max(inputs.shape[-2:]) == 48


@torch.no_grad()
def test_bicubic_as_the_published_code_resizes_for_sam():
    """Published: normalised pixels, the longer side to S bicubically, padded with zeros, through the encoder."""
    teacher = build(SAM, interpolation="bicubic")
    images = torch.rand(2, 3, 32, 16)
    pixels = F.interpolate((images - teacher.mean) / teacher.std, (48, 24), mode="bicubic", align_corners=False)
    torch.testing.assert_close(teacher.normalise(images), pixels, rtol=1e-4, atol=1e-4)
    tokens = teacher.backbone.patch_embed(F.pad(pixels, (0, 24))) + teacher.backbone.pos_embed
    for ours, block in zip(teacher(images), teacher.backbone.blocks, strict=True):
        tokens = block(tokens)
        torch.testing.assert_close(ours, tokens.permute(0, 3, 1, 2)[..., :3], rtol=1e-3, atol=1e-4)
    bilinear = build(SAM).normalise(images)
    assert 0.01 < (bilinear - pixels).norm() / pixels.norm() < 0.5


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "spec", [SAM, dataclasses.replace(CLIP, input_size=32), dataclasses.replace(CNN, input_size=32)]
)
def test_stripes_finer_than_the_pixels_become_grey(spec, interpolation):
    teacher = build(spec, interpolation=interpolation)
    stripes = (torch.arange(190) % 2).float().expand(1, 3, 190, 190)
    seen = teacher.normalise(stripes) * teacher.std + teacher.mean
    assert (seen[..., 4:-4, 4:-4] - 0.5).abs().max() < 0.05


@pytest.mark.parametrize(("scales", "size"), [([2], 190), ([1, 3], 250), ([1, 2], 300)])
def test_stripes_become_grey_at_the_scales_of_an_s2_teacher_too(scales, size, monkeypatch):
    plain = build(DINOV2, input_size=28)
    seen = []
    monkeypatch.setattr(plain, "features", lambda inputs: seen.append(inputs) or [inputs[:, :1, ::7, ::7]] * 2)
    MultiScale(plain, scales)((torch.arange(size) % 2).float().expand(1, 3, size, size))
    for inputs in seen:
        assert ((inputs * plain.std + plain.mean)[..., 4:-4, 4:-4] - 0.5).abs().max() < 0.05


@pytest.mark.parametrize(
    "spec",
    [
        dataclasses.replace(DINOV2, input_size=28),
        SAM,
        teachers.TeacherSpec(
            family="timm", model="beit_base_patch16_224", weights="random", levels=[1],
            options={"embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": 8, "img_size": 32},
        ),
    ],
)  # fmt: skip
def test_who_resizes_cannot_crop(spec):
    with pytest.raises(UserError, match=r"teacher t: fit is 'crop', .* set input_size: native, or leave fit out"):
        build(spec, fit="crop")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"fit": "pad"}, "fit is 'pad'; it can be 'resize' or 'crop'"),
        ({"interpolation": "nearest"}, "interpolation is 'nearest'; it can be 'bilinear' or 'bicubic'"),
    ],
)
def test_mistakes(changes, sentence):
    with pytest.raises(UserError, match=f"teacher t: {sentence}"):
        build(DINOV2, **changes)


def test_an_image_smaller_than_a_patch_cannot_be_cropped():
    with pytest.raises(UserError, match="6 pixels is smaller than the 7 of one patch"):
        build(DINOV2, fit="crop")(torch.rand(1, 3, 28, 6))


@pytest.mark.parametrize("window", [0, 3])
def test_sams_attention_builds_nothing_elsewhere(window, monkeypatch):
    """On a device of its own, as an accelerator is: tensors of another one would not mix."""
    with torch.device("meta"):
        block = sam.image_encoder("vit_b", **SAM.options).blocks[0]
        tokens = torch.rand(1, 6, 6, 24)
    made = []
    real = torch.eye

    def noting(*arguments, **options):
        made.append(real(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(torch, "eye", noting)
    assert sam.attend(block.attn, tokens, window).shape == (1, 6, 6, 24)
    assert [matrix.device.type for matrix in made] == ["meta"] * 2

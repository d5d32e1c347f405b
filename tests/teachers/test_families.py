"""Each family gives exactly its library's block outputs, and says plainly what does not fit."""

import dataclasses

import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from safetensors.torch import save_file
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

import teachers
from sak.errors import UserError
from teachers.sam import image_encoder, run_block

TINY = {
    "dinov2": teachers.TeacherSpec(
        family="dinov2",
        model="vit_small_patch14_dinov2",
        weights="random",
        levels=[0, 2],
        options={"img_size": 28, "patch_size": 7, "embed_dim": 24, "depth": 3, "num_heads": 2},
    ),
    "clip": teachers.TeacherSpec(
        family="clip",
        model="ViT-B-16",
        weights="random",
        levels=[0, 2],
        options={"image_size": 32, "patch_size": 8, "width": 24, "layers": 3, "head_width": 12, "embed_dim": 8},
    ),
    "sam": teachers.TeacherSpec(
        family="sam",
        model="vit_b",
        weights="random",
        levels=[0, 2],
        options={
            "img_size": 32,
            "patch_size": 8,
            "embed_dim": 24,
            "depth": 3,
            "num_heads": 2,
            "window_size": 3,
            "global_attn_indexes": [2],
            "out_chans": 8,
        },
    ),
}
FAMILIES = sorted(TINY)
# What a file of CLIP without a tag or notes does not tell.
UNTOLD = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD, "quick_gelu": False}


def loading(family, path):
    """The tiny specification with weights of a file that holds tensors alone."""
    options = {**TINY[family].options, **(UNTOLD if family == "clip" else {})}
    return dataclasses.replace(TINY[family], weights=str(path), options=options)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def recorded(blocks, run, levels):
    """The outputs of some blocks while `run` runs, by forward hooks."""
    seen = {}
    hooks = [
        blocks[level].register_forward_hook(lambda _m, _i, out, level=level: seen.__setitem__(level, out))
        for level in levels
    ]
    run()
    for hook in hooks:
        hook.remove()
    return [seen[level] for level in levels]


def library_model(family):
    """The library's own complete model at the tiny size, all of its parameters random."""
    spec = TINY[family]
    if family == "dinov2":
        model = timm.create_model(spec.model, num_classes=5, **spec.options)
    elif family == "clip":
        vision = {key: value for key, value in spec.options.items() if key != "embed_dim"}
        text = {"context_length": 4, "vocab_size": 10, "width": 8, "heads": 2, "layers": 1}
        model = open_clip.CLIP(spec.options["embed_dim"], vision, text)
    else:
        width, grid, size = spec.options["out_chans"], (4, 4), (32, 32)
        model = Sam(
            image_encoder("vit_b", **spec.options),
            PromptEncoder(width, grid, size, mask_in_chans=4),
            MaskDecoder(
                transformer_dim=width,
                transformer=TwoWayTransformer(depth=1, embedding_dim=width, num_heads=2, mlp_dim=16),
            ),
        )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def library_features(family, model, images):
    """Block outputs (B,D,h,w) of the library's own preprocessing and forward pass, for images of the model's size."""
    levels = TINY[family].levels
    if family == "sam":
        blocks = model.image_encoder.blocks
        outputs = recorded(blocks, lambda: model.image_encoder(model.preprocess(255 * images)), levels)
        return [output.permute(0, 3, 1, 2) for output in outputs]
    if family == "dinov2":
        mean, std, blocks, run = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, model.blocks, model
    else:
        mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
        blocks, run = model.visual.transformer.resblocks, model.encode_image
    pixels = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    outputs = recorded(blocks, lambda: run(pixels), levels)
    return [output[:, 1:].transpose(1, 2).unflatten(2, (4, 4)) for output in outputs]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_features_are_the_librarys_block_outputs(family, suffix, tmp_path):
    model = library_model(family)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(model.state_dict(), path)
    else:
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    teacher = teachers.build(family, loading(family, path))

    images = torch.rand(2, 3, *((28, 28) if family == "dinov2" else (32, 32)))
    features = teacher(images)

    assert teacher.dims == [24, 24]
    for ours, theirs in zip(features, library_features(family, model, images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_dinov2_at_another_size_is_timm_with_a_dynamic_size():
    teacher = teachers.build("dinov2", TINY["dinov2"])
    reference = timm.create_model(
        TINY["dinov2"].model, num_classes=0, dynamic_img_size=True, **TINY["dinov2"].options
    ).eval()
    reference.load_state_dict(teacher.backbone.state_dict())
    images = torch.rand(1, 3, 42, 56)
    pixels = (images - teacher.mean) / teacher.std
    expected = recorded(reference.blocks, lambda: reference(pixels), [0, 2])
    for ours, theirs in zip(teacher(images), expected, strict=True):
        torch.testing.assert_close(ours, theirs[:, 1:].transpose(1, 2).unflatten(2, (6, 8)), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_clip_at_another_size_is_open_clip_with_resized_position_embedding(tmp_path):
    """open_clip resizes when it loads a square checkpoint into a model of another size."""
    model = library_model("clip")
    save_file({f"visual.{key}": value for key, value in model.visual.state_dict().items()}, tmp_path / "w.safetensors")
    teacher = teachers.build("clip", loading("clip", tmp_path / "w.safetensors"))
    larger = open_clip.CLIP(
        8,
        {**{key: value for key, value in TINY["clip"].options.items() if key != "embed_dim"}, "image_size": 48},
        {"context_length": 4, "vocab_size": 10, "width": 8, "heads": 2, "layers": 1},
    ).eval()
    state = model.state_dict()
    open_clip.model.resize_pos_embed(state, larger)
    larger.load_state_dict(state)
    images = torch.rand(1, 3, 48, 48)
    pixels = (images - teacher.mean) / teacher.std
    expected = recorded(larger.visual.transformer.resblocks, lambda: larger.encode_image(pixels), [0, 2])
    for ours, theirs in zip(teacher(images), expected, strict=True):
        torch.testing.assert_close(ours, theirs[:, 1:].transpose(1, 2).unflatten(2, (6, 6)), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_sam_pads_below_and_crops_the_features():
    teacher = teachers.build("sam", TINY["sam"])
    images = torch.rand(1, 3, 16, 32)
    pixels = F.pad((images - teacher.mean) / teacher.std, (0, 0, 0, 16))
    expected = recorded(
        teacher.backbone.blocks,
        lambda: (
            [tokens := teacher.backbone.patch_embed(pixels) + teacher.backbone.pos_embed]
            + [tokens := block(tokens) for block in teacher.backbone.blocks]
        ),
        [0, 2],
    )
    for ours, theirs in zip(teacher(images), expected, strict=True):
        torch.testing.assert_close(ours, theirs.permute(0, 3, 1, 2)[:, :, :2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (40, 24), (48, 64)])
@torch.no_grad()
def test_sam_at_its_images_own_size(size):
    """Without padding: the library's blocks on the image's grid, whose relative positions they resize themselves."""
    teacher = teachers.build("sam", dataclasses.replace(TINY["sam"], input_size="native"))
    for parameter in teacher.parameters():
        nn.init.normal_(parameter, std=0.3)
    images = torch.rand(2, 3, *size)
    backbone = teacher.backbone
    tokens = backbone.patch_embed((images - teacher.mean) / teacher.std)
    position = F.interpolate(backbone.pos_embed.permute(0, 3, 1, 2), tokens.shape[1:3], mode="bicubic", antialias=True)
    tokens = tokens + (position.permute(0, 2, 3, 1) if size != (32, 32) else backbone.pos_embed)
    expected = []
    for block in backbone.blocks:
        expected.append(tokens := block(tokens))
    for ours, theirs in zip(teacher(images), [expected[0], expected[2]], strict=True):
        torch.testing.assert_close(ours, theirs.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"qkv_bias": False}, {"use_rel_pos": False}, {"window_size": 0}])
@pytest.mark.parametrize("learning", [True, False])  # attention has a form of its own where nothing learns
def test_sam_without_some_of_its_parts(options, learning):
    encoder = image_encoder("vit_b", **{**TINY["sam"].options, **options}).eval()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    tokens = torch.randn(2, 4, 6, 24)
    with torch.set_grad_enabled(learning):
        for block in encoder.blocks:
            torch.testing.assert_close(run_block(block, tokens), block(tokens), rtol=1e-4, atol=1e-4)


FULL_SIZE = [
    ("dinov2", "vit_small_patch14_dinov2.lvd142m", 252),
    ("dinov2", "vit_base_patch14_dinov2.lvd142m", 252),
    ("clip", "ViT-B-16", 224),
    ("clip", "ViT-L-14", 224),
    ("sam", "vit_b", 1024),
    ("sam", "vit_l", 512),
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "model", "size"), FULL_SIZE)
@torch.no_grad()
def test_full_size(family, model, size):
    """The published architectures at the library's own size, with weights that are all random."""
    options = {"dinov2": {"img_size": size}, "clip": {}, "sam": {"img_size": size}}[family]
    teacher = teachers.build(
        "t", teachers.TeacherSpec(family=family, model=model, weights="random", levels=[2, 11], options=options)
    )
    for name, parameter in teacher.named_parameters():
        if "rel_pos" in name or "pos_embed" in name:
            nn.init.normal_(parameter, std=0.02)  # segment_anything starts them at zero
    images = torch.rand(1, 3, size, size)
    backbone, pixels = teacher.backbone, (images - teacher.mean) / teacher.std
    if family == "sam":
        tokens = backbone.patch_embed(pixels) + backbone.pos_embed
        expected = []
        for block in backbone.blocks[:12]:
            expected.append(tokens := block(tokens))
        expected = [expected[level].permute(0, 3, 1, 2) for level in (2, 11)]
    else:
        blocks = backbone.blocks if family == "dinov2" else backbone.transformer.resblocks
        grid = size // teacher.patch_size
        tokens = recorded(blocks, lambda: backbone(pixels), [2, 11])
        expected = [level[:, 1:].transpose(1, 2).unflatten(2, (grid, grid)) for level in tokens]
    for ours, theirs in zip(teacher(images), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "input_size", "image", "grid"),
    [
        ("sam", "native", (48, 33), (6, 4)),
        ("dinov2", None, (28, 28), (4, 4)),
        ("dinov2", None, (30, 61), (4, 9)),  # nearest multiples of 7
        ("dinov2", 56, (30, 60), (4, 8)),
        ("dinov2", None, (7, 28), (1, 4)),
        ("clip", None, (32, 60), (4, 8)),
        ("clip", 16, (64, 32), (2, 1)),
        ("sam", None, (100, 100), (4, 4)),
        ("sam", None, (96, 48), (4, 2)),
        ("sam", 64, (48, 96), (4, 8)),
    ],
)
def test_grid_tells_the_features_size(family, input_size, image, grid):
    teacher = teachers.build(family, dataclasses.replace(TINY[family], input_size=input_size))
    features = teacher(torch.rand(1, 3, *image))
    assert teacher.grid(*image) == grid
    assert [tuple(level.shape) for level in features] == [(1, 24, *grid)] * 2
    assert all(level.isfinite().all() for level in features)


@pytest.mark.parametrize("family", FAMILIES)
def test_statistics_are_the_teachers_own_unless_asked(family):
    own = teachers.build(family, TINY[family])
    imagenet = teachers.build(family, dataclasses.replace(TINY[family], input_stats="imagenet"))
    expected = open_clip.OPENAI_DATASET_MEAN if family == "clip" else IMAGENET_DEFAULT_MEAN
    assert own.mean.flatten().tolist() == pytest.approx(list(expected))
    assert imagenet.mean.flatten().tolist() == pytest.approx(list(IMAGENET_DEFAULT_MEAN))
    assert imagenet.std.flatten().tolist() == pytest.approx(list(IMAGENET_DEFAULT_STD))
    grey = own.mean.expand(1, 3, 32, 32)
    torch.testing.assert_close(own.normalise(grey), torch.zeros_like(own.normalise(grey)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_for_good(family):
    teacher = teachers.build(family, TINY[family])
    outer = nn.ModuleList([teacher]).train()
    assert not any(module.training for module in outer[0].modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert "mean" not in teacher.state_dict()
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    features = teacher(image)
    assert not features[0].requires_grad
    scale = torch.ones(1, requires_grad=True)
    (features[0] * scale).sum().backward()  # an inference tensor could not be saved for this
    assert scale.grad is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_that_do_not_fit(family, tmp_path):
    model = library_model(family)
    good = {key: value.contiguous() for key, value in model.state_dict().items()}
    prefix = {"dinov2": "", "clip": "visual.", "sam": "image_encoder."}[family]
    block = next(key for key in good if key.startswith(prefix) and "blocks.1." in key)
    path = tmp_path / "weights.safetensors"
    spec = dataclasses.replace(TINY[family], weights=str(path))

    with pytest.raises(UserError, match=r"there is no weights file .*weights\.safetensors"):
        teachers.build("t", spec)
    for change, message in (
        ({block: None}, f"lacks {block}"),
        ({f"{prefix}extra": torch.zeros(1)}, f"holds unknown {prefix}extra"),
        ({block: torch.zeros(1)}, f"does not fit: {block} has shape"),
    ):
        save_file({key: value for key, value in {**good, **change}.items() if value is not None}, path)
        with pytest.raises(UserError, match=f"teacher t: .*{path.name} {message}"):
            teachers.build("t", spec)
    path.write_bytes(b"not weights")
    with pytest.raises(UserError, match="cannot be read as weights"):
        teachers.build("t", spec)


def test_checkpoint_with_more_than_weights(tmp_path):
    torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "run.pth")
    with pytest.raises(UserError, match="not a flat dict"):
        teachers.build("t", dataclasses.replace(TINY["sam"], weights=str(tmp_path / "run.pth")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"family": "dinov3"},
            r"unknown family 'dinov3'; did you mean dinov2\? Known: clip, dinov2, sam, student, timm",
        ),
        ({"levels": [0, 3]}, r"levels \[0, 3\] .* from 0 to 2"),
        ({"levels": [2, 0]}, "increasing"),
        ({"levels": []}, "increasing"),
        ({"model": "vit_small_patch14_dino"}, "did you mean vit_small_patch14_dino"),
        ({"options": {"embed_dims": 3}}, "options .* do not suit"),
        ({"input_stats": "none"}, "'own' or 'imagenet'"),
        ({"input_size": "big"}, "input_size is 'big'; give pixels, 'native' or null"),
        ({"input_size": 0}, "input_size is 0"),
    ],
)
def test_mistakes_in_the_specification(changes, message):
    with pytest.raises(UserError, match=message):
        teachers.build("t", dataclasses.replace(TINY["dinov2"], **changes))


def test_mistakes_in_other_families():
    with pytest.raises(UserError, match=r"unknown SAM model 'vit_x'.*vit_b, vit_h, vit_l"):
        teachers.build("t", dataclasses.replace(TINY["sam"], model="vit_x"))
    with pytest.raises(UserError, match="multiple of 8"):
        teachers.build("t", dataclasses.replace(TINY["sam"], input_size=30))
    with pytest.raises(UserError, match="did you mean ViT-B-16"):
        teachers.build("t", dataclasses.replace(TINY["clip"], model="ViT-B16"))
    with pytest.raises(UserError, match=r"needs options\.pretrained, one of .*laion2b_s34b_b88k"):
        teachers.build("t", dataclasses.replace(TINY["clip"], weights=None))


def test_a_mapping_is_as_good_as_a_specification():
    spec = OmegaConf.structured(TINY["sam"])
    assert teachers.build("t", spec).grid(32, 16) == (4, 2)
    assert teachers.build("t", OmegaConf.to_container(spec)).name == "t"
    with pytest.raises(UserError, match="wieghts"):
        teachers.build("t", {"family": "sam", "model": "vit_b", "wieghts": "random"})
    with pytest.raises(UserError, match="family"):
        teachers.build("t", {"model": "vit_b"})

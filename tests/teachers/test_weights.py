"""Where weights come from and how they are refused: published formats, the hub, hashes, checkpoints of others."""

import dataclasses
import hashlib
import types
import urllib.error

import open_clip
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import save_file
from torch import nn

import teachers
from sak.errors import UserError
from teachers import sam, weights

CLIP = teachers.TeacherSpec(
    family="clip", model="ViT-B-16", levels=[0, 2],
    options={"image_size": 32, "patch_size": 8, "width": 24, "layers": 3, "head_width": 12, "embed_dim": 8},
)  # fmt: skip
SAM = teachers.TeacherSpec(
    family="sam", model="vit_b", levels=[0, 1],
    options={"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "window_size": 3,
             "global_attn_indexes": [1], "out_chans": 8},
)  # fmt: skip
DINOV2 = teachers.TeacherSpec(
    family="dinov2", model="vit_small_patch14_dinov2.lvd142m", levels=[1],
    options={"img_size": 28, "patch_size": 7, "embed_dim": 24, "depth": 2, "num_heads": 2},
)  # fmt: skip
RESPONSE = types.SimpleNamespace(headers={}, request=None)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def clip_model(quick_gelu=False, **vision):
    vision = {key: value for key, value in CLIP.options.items() if key != "embed_dim"} | vision
    text = {"context_length": 4, "vocab_size": 10, "width": 8, "heads": 2, "layers": 1}
    model = open_clip.CLIP(8, vision, text, quick_gelu=quick_gelu)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def blocks_of(clip, images):
    seen = []
    for level in CLIP.levels:
        clip.visual.transformer.resblocks[level].register_forward_hook(lambda _m, _i, out: seen.append(out))
    clip.encode_image(images)
    return [tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4)) for tokens in seen]


@torch.no_grad()
def test_openais_file_with_the_activation_and_statistics_of_its_tag(tmp_path):
    """A half-precision state dict with OpenAI's three numbers beside it; trained with QuickGELU."""
    model = clip_model(quick_gelu=True)
    state = {key: value.half() for key, value in model.state_dict().items()}
    state |= {"input_resolution": torch.tensor(32), "context_length": torch.tensor(4), "vocab_size": torch.tensor(10)}
    torch.save(state, tmp_path / "ViT-B-16.pt")
    model.load_state_dict({key: value for key, value in state.items() if value.ndim or key in model.state_dict()})
    spec = dataclasses.replace(CLIP, weights=str(tmp_path / "ViT-B-16.pt"))
    teacher = teachers.build("t", dataclasses.replace(spec, options={**CLIP.options, "pretrained": "openai"}))
    images = torch.rand(2, 3, 32, 32)
    expected = blocks_of(model, (images - teacher.mean) / teacher.std)
    for ours, theirs in zip(teacher(images), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    plain = teachers.build("t", dataclasses.replace(spec, options={**CLIP.options, "quick_gelu": False}))(images)
    assert (plain[1] - expected[1]).abs().max() > 1e-3
    for ours, theirs in zip(teachers.build("t", spec)(images), expected, strict=True):  # its keys tell as much as a tag
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert {"input_resolution", "token_embedding.weight"} <= set(teacher.report.left_out)


def test_the_tag_decides_the_statistics():
    spec = dataclasses.replace(CLIP, model="ViT-L-14", weights="random")
    tagged = dataclasses.replace(spec, options={**CLIP.options, "pretrained": "laion2b_s32b_b82k"})
    assert teachers.build("t", tagged).mean.flatten().tolist() == [0.5, 0.5, 0.5]
    with pytest.raises(UserError, match=r"unknown options\.pretrained of ViT-L-14 'openia'; did you mean openai\?"):
        teachers.build("t", dataclasses.replace(spec, options={"pretrained": "openia"}))


@torch.no_grad()
def test_open_clips_training_checkpoint(tmp_path):
    """{"epoch": ..., "state_dict": {"module....": ...}}, as open_clip's own training writes it."""
    model = clip_model()
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch_3.pt")
    untold = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD, "quick_gelu": False}
    spec = dataclasses.replace(CLIP, weights=str(tmp_path / "epoch_3.pt"), options={**CLIP.options, **untold})
    teacher = teachers.build("t", spec)
    images = torch.rand(1, 3, 32, 32)
    for ours, theirs in zip(teacher(images), blocks_of(model, (images - teacher.mean) / teacher.std), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "levels", "dims"),
    [("RN50", [1, 3], [32, 128]), ("ViT-B-16-SigLIP", [0, 1], [24, 24])],
)
@torch.no_grad()
def test_other_towers_of_open_clip(model, levels, dims, monkeypatch):
    options = {"width": 8, "layers": [1, 1, 1, 1], "image_size": 64}
    if model == "ViT-B-16-SigLIP":  # its tower comes from timm: a tiny one in its place
        monkeypatch.setattr(open_clip.timm_model.timm, "create_model", tiny_siglip)
        options = {"image_size": 32, "embed_dim": 24}
    teacher = teachers.build(
        "t", teachers.TeacherSpec(family="clip", model=model, weights="random", levels=levels, options=options)
    )
    images = torch.rand(1, 3, 64, 64)
    features = teacher(images)
    assert teacher.dims == dims
    assert [tuple(level.shape[1:]) for level in features] == [
        (dim, *teacher.grid(64, 64, position)) for position, dim in enumerate(dims)
    ]
    if model == "RN50":
        tower, seen = teacher.backbone, []
        tower.layer1.register_forward_hook(lambda _m, _i, out: seen.append(out))
        tower.layer3.register_forward_hook(lambda _m, _i, out: seen.append(out))
        tower.attnpool = nn.Identity()
        tower((images - teacher.mean) / teacher.std)
        for ours, theirs in zip(features, seen, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def tiny_siglip(name, **options):
    from timm.models.vision_transformer import VisionTransformer

    assert name.startswith("vit_base_patch16_siglip")
    return VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, class_token=False, global_pool="map",
        num_classes=options["num_classes"],
    )  # fmt: skip


@torch.no_grad()
def test_sams_published_files_must_have_the_published_hash(tmp_path, monkeypatch):
    encoder = sam.image_encoder("vit_b", **SAM.options)
    state = {f"image_encoder.{key}": value for key, value in encoder.state_dict().items()}
    path = tmp_path / "sam_vit_b_01ec64.pth"
    torch.save(state, path)
    spec = dataclasses.replace(SAM, weights=str(path))
    with pytest.raises(UserError, match=r"SHA-256 of .*sam_vit_b_01ec64\.pth begins with .* file with 01ec64"):
        teachers.build("t", spec)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:6]
    monkeypatch.setitem(sam.PUBLISHED, "vit_b", (path.name, digest))
    report = teachers.build("t", spec).report
    assert all(key.startswith("image_encoder.neck.") for key in report.left_out)
    assert "left out: image_encoder" in str(report)

    # the same file, fetched into torch.hub's cache: found there
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    cached = tmp_path / "torch" / "hub" / "checkpoints" / path.name
    cached.parent.mkdir(parents=True)
    cached.write_bytes(path.read_bytes())
    assert teachers.build("t", dataclasses.replace(SAM, weights=None)).report.source == str(cached)


def test_sam_offline(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(UserError, match=r"fetch https://dl\..*/sam_vit_b_01ec64\.pth elsewhere and put it there"):
        teachers.build("t", dataclasses.replace(SAM, weights=None))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            lambda response: errors.LocalEntryNotFoundError("offline"),
            r"model\.safetensors of timm/vit_small_patch14_dinov2\.lvd142m is not in the cache \(.*\) and cannot be "
            r"downloaded; fetch https://huggingface\.co/timm/.*/resolve/main/model\.safetensors elsewhere",
        ),
        (lambda response: errors.GatedRepoError("403", response=response), r"gated; accept the terms at https://"),
        (lambda response: errors.RepositoryNotFoundError("404", response=response), "the hub has no timm/vit_small"),
        (
            lambda response: errors.RevisionNotFoundError("404", response=response),
            "has no revision v9 of timm/",
        ),
    ],
)
def test_the_hub_says_no(error, message, monkeypatch):
    asked = []

    def fail(repo, file, revision):
        asked.append((repo, file, revision))
        raise error(RESPONSE)

    monkeypatch.setattr(weights, "hf_hub_download", fail)
    revision = "v9" if "v9" in message else None
    with pytest.raises(UserError, match=message):
        teachers.build("t", dataclasses.replace(DINOV2, revision=revision))
    assert asked[0] == ("timm/vit_small_patch14_dinov2.lvd142m", "model.safetensors", revision)


def test_the_hubs_file_is_read_like_a_local_one(tmp_path, monkeypatch):
    random = teachers.build("t", dataclasses.replace(DINOV2, weights="random"))
    torch.save(random.backbone.state_dict(), tmp_path / "pytorch_model.bin")

    def download(repo, file, revision):
        if file == "model.safetensors":
            raise errors.EntryNotFoundError("404")
        return str(tmp_path / file)

    monkeypatch.setattr(weights, "hf_hub_download", download)
    teacher = teachers.build("t", DINOV2)
    images = torch.rand(1, 3, 28, 28)
    torch.testing.assert_close(teacher(images)[0], random(images)[0])
    committee = teachers.Committee({"a": DINOV2, "b": dataclasses.replace(DINOV2, weights="random")})
    assert committee.reports[0] == f"a: {teacher.report}"
    assert committee.reports[1] == "b: untrained weights"


def test_checkpoints_of_other_families(tmp_path):
    files = {
        "clip": clip_model().state_dict(),
        "sam": {f"image_encoder.{k}": v for k, v in sam.image_encoder("vit_b", **SAM.options).state_dict().items()},
        "dinov2": teachers.build("t", dataclasses.replace(DINOV2, weights="random")).backbone.state_dict(),
    }
    for owner, state in files.items():
        save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / f"{owner}.safetensors")
    for spec in (CLIP, SAM, DINOV2):
        for other in files.keys() - {spec.family}:
            with pytest.raises(UserError, match=f"teacher t: .*{other}.safetensors (lacks|is not a checkpoint)"):
                teachers.build("t", dataclasses.replace(spec, weights=str(tmp_path / f"{other}.safetensors")))

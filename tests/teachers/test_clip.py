"""CLIP: what decides its statistics and its activation, and where its models come from."""

import dataclasses
import json
import types

import open_clip
import pytest
import torch
from huggingface_hub import errors
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file
from torch import nn

import teachers
from sak.errors import UserError
from teachers import weights
from teachers.pretrain.miniatures import MINIATURES

TINY = {"image_size": 32, "patch_size": 8, "width": 24, "layers": 2, "head_width": 12, "embed_dim": 8}
SPEC = teachers.TeacherSpec(family="clip", model="ViT-B-16", levels=[0, 1], options=TINY)
OPENAI = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
HALF = ([0.5] * 3, [0.5] * 3)


def model(quick_gelu=False):
    text = {"context_length": 4, "vocab_size": 10, "width": 8, "heads": 2, "layers": 1}
    vision = {key: value for key, value in TINY.items() if key != "embed_dim"}
    clip = open_clip.CLIP(TINY["embed_dim"], vision, text, quick_gelu=quick_gelu).eval()
    for parameter in clip.parameters():
        nn.init.normal_(parameter, std=0.3)
    return clip


def build(spec=SPEC, **changes):
    return teachers.build("t", dataclasses.replace(spec, **changes))


def known(teacher):
    """Statistics and whether the activation is QuickGELU, as the built teacher has them."""
    assert teacher.mean.shape == teacher.std.shape == (1, 3, 1, 1)
    mean, std = (
        [round(value, 8) for value in part.double().flatten().tolist()] for part in (teacher.mean, teacher.std)
    )
    return mean, std, any(isinstance(part, QuickGELU) for part in teacher.modules())


def close(ours, statistics, quick_gelu):
    assert ours[0] == pytest.approx(statistics[0], abs=1e-7)
    assert ours[1] == pytest.approx(statistics[1], abs=1e-7)
    assert ours[2] == quick_gelu


@pytest.mark.parametrize(
    ("name", "tag", "statistics", "quick_gelu"),
    [
        ("ViT-B-16", "openai", OPENAI, True),
        ("ViT-B-16-quickgelu", "openai", OPENAI, True),
        ("ViT-B-16", "laion2b_s34b_b88k", OPENAI, False),
        ("ViT-B-16", "datacomp_xl_s13b_b90k", OPENAI, False),
        ("ViT-B-16", "dfn2b", OPENAI, True),
        ("ViT-B-16", "metaclip_400m", OPENAI, True),
        ("ViT-L-14", "openai", OPENAI, True),
        ("ViT-L-14", "laion2b_s32b_b82k", HALF, False),  # the one of LAION's that was trained with Inception's numbers
        ("ViT-L-14", "datacomp_xl_s13b_b90k", OPENAI, False),
        ("ViT-H-14", "laion2b_s32b_b79k", OPENAI, False),
    ],
)
def test_a_tag_decides_both(name, tag, statistics, quick_gelu):
    """Against what the papers and model cards say of them."""
    teacher = build(model=name, weights="random", options={**TINY, "pretrained": tag})
    close(known(teacher), statistics, quick_gelu)


def test_of_an_untagged_file_nothing_is_guessed(tmp_path):
    file = tmp_path / "clip.safetensors"
    save_file(model().visual.state_dict(), file)
    with pytest.raises(
        UserError,
        match=r"teacher t: .*clip\.safetensors does not tell what its pixels .* set options\.pretrained, .*\(openai, .*"
        r" or options\.mean, options\.std, options\.quick_gelu\.",
    ):
        build(weights=str(file))
    with pytest.raises(UserError, match=r"or options\.quick_gelu\."):
        build(weights=str(file), options={**TINY, "mean": [0.5] * 3, "std": [0.5] * 3})
    teacher = build(
        weights=str(file), options={**TINY, "mean": [0.1, 0.2, 0.3], "std": [1, 1, 0.5], "quick_gelu": True}
    )
    close(known(teacher), ([0.1, 0.2, 0.3], [1, 1, 0.5]), True)
    close(known(build(weights=str(file), options={**TINY, "pretrained": "dfn2b"})), OPENAI, True)
    # what is said in so many words goes before the tag's
    options = {**TINY, "pretrained": "dfn2b", "mean": [0.5] * 3, "quick_gelu": False}
    close(known(build(weights=str(file), options=options)), (HALF[0], OPENAI[1]), False)


def test_a_convolutional_tower_has_no_activation_to_ask_for(tmp_path):
    spec = dataclasses.replace(
        SPEC, model="RN50", options={"width": 8, "layers": [1, 1, 1, 1], "image_size": 64, "embed_dim": 16}
    )
    save_file({f"visual.{key}": value for key, value in build(spec, weights="random").backbone.state_dict().items()},
              tmp_path / "rn.safetensors")  # fmt: skip
    with pytest.raises(UserError, match=r"or options\.mean, options\.std\.$"):
        build(spec, weights=str(tmp_path / "rn.safetensors"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["torchscript", "state dict", "state dict in a wrapper"])
@torch.no_grad()
def test_openais_own_file_says_what_it_is_by_its_keys(kind, tmp_path):
    """Half precision, three numbers beside the weights, and TorchScript as OpenAI published it."""
    clip = model(quick_gelu=True).half()
    for name, value in (("input_resolution", 32), ("context_length", 4), ("vocab_size", 10)):
        if hasattr(clip, name):
            delattr(clip, name)
        clip.register_buffer(name, torch.tensor(value))
    file = tmp_path / "ViT-B-16.pt"
    if kind == "torchscript":
        torch.jit.trace_module(clip.float(), {"encode_image": torch.rand(1, 3, 32, 32)}).half().save(file)
        clip.half()
    elif kind == "state dict":
        torch.save(clip.state_dict(), file)
    else:
        torch.save({"model": {f"module.clip.{key}": value for key, value in clip.state_dict().items()}}, file)
    teacher = build(weights=str(file))
    close(known(teacher), OPENAI, True)
    expected = build(weights="random", options={**TINY, "pretrained": "openai"})
    expected.backbone.load_state_dict({key: value.float() for key, value in clip.visual.state_dict().items()})
    images = torch.rand(2, 3, 32, 32)
    for ours, theirs in zip(teacher(images), expected(images), strict=True):
        assert torch.equal(ours, theirs)


def test_the_miniature_notes_what_it_was_trained_with():
    close(known(teachers.build("clip", MINIATURES["clip"])), OPENAI, False)


# --- repositories ----------------------------------------------------------------------------------------------------

VISION = {key: value for key, value in TINY.items() if key != "embed_dim"}


def repository(folder, **changes):
    """A folder as open_clip's on the hub: config and weights of its own making."""
    folder.mkdir(exist_ok=True)
    text = {"context_length": 4, "vocab_size": 10, "width": 8, "heads": 2, "layers": 1}
    config = {
        "model_cfg": {"embed_dim": 8, "vision_cfg": VISION, "text_cfg": text, "quick_gelu": True},
        "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
        **changes,
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    clip = model(quick_gelu=True)
    save_file({key: value.contiguous() for key, value in clip.state_dict().items()},
              folder / "open_clip_model.safetensors")  # fmt: skip
    return clip


@pytest.mark.parametrize("how", ["local-dir:{}", "{}", "hf-hub:someone/some-clip"])
@torch.no_grad()
def test_a_repository_brings_its_architecture_statistics_and_weights(how, tmp_path, monkeypatch):
    clip = repository(tmp_path / "clip")
    asked = []

    def download(repo, file, revision):
        asked.append((repo, file, revision))
        return str(tmp_path / "clip" / file)

    monkeypatch.setattr(weights, "hf_hub_download", download)
    spec = teachers.TeacherSpec(family="clip", model=how.format(tmp_path / "clip"), levels=[0, 1])
    teacher = build(spec, revision="v2")
    close(known(teacher), ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]), True)
    seen = []
    clip.visual.transformer.resblocks[1].register_forward_hook(lambda _m, _i, out: seen.append(out))
    images = torch.rand(1, 3, 32, 32)
    clip.encode_image((images - teacher.mean) / teacher.std)
    torch.testing.assert_close(
        teacher(images)[1], seen[0][:, 1:].transpose(1, 2).unflatten(2, (4, 4)), rtol=1e-4, atol=1e-4
    )
    files = ["open_clip_config.json", "open_clip_model.safetensors"]
    assert asked == ([("someone/some-clip", file, "v2") for file in files] if "hub" in how else [])
    # other weights of the same model, and none
    save_file(model().visual.state_dict(), tmp_path / "other.safetensors")
    close(known(build(spec, weights=str(tmp_path / "other.safetensors"))), ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]), True)
    assert build(spec, weights="random").report is None


def test_weights_may_name_the_folder_and_its_config_tells(tmp_path, monkeypatch):
    config = open_clip.get_model_config("ViT-B-16")
    repository(tmp_path / "clip", model_cfg={**config, "quick_gelu": False})
    close(known(build(weights=str(tmp_path / "clip"))), ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]), False)
    close(known(build(weights=str(tmp_path / "clip" / "open_clip_model.safetensors"))),
          ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]), False)  # fmt: skip
    repository(tmp_path / "clip")  # of another architecture: that file is of another model
    with pytest.raises(UserError, match="does not tell"):
        build(weights=str(tmp_path / "clip"))


def test_a_config_without_statistics_has_open_clips_own(tmp_path):
    repository(tmp_path / "clip", preprocess_cfg={})
    close(known(build(model=str(tmp_path / "clip"), options={})), OPENAI, True)


RESPONSE = types.SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"model": "hf-hub:someone/none"}, "the hub has no someone/none with open_clip_config.json"),
        ({"model": "local-dir:{}/nowhere"}, r"nowhere/open_clip_config\.json cannot be read \(No such file"),
        ({"model": "{}/broken"}, r"broken/open_clip_config\.json is no config of open_clip"),
        ({"model": "{}/list"}, r"list/open_clip_config\.json is no config of open_clip"),
        ({"model": "{}/bare"}, r"there is no weights file .*bare nor a folder of that name with open_clip_model\.safe"),
        ({"model": "{}/bare", "options": {"pretrained": "openai"}}, "options.pretrained is for open_clip's own names"),
        ({"model": "{}/bare", "weights": "random", "options": {"widht": 3}}, "options .* do not suit .*widht"),
        ({"model": "ViT-B-16", "weights": "random", "options": {"mean": [0.5]}}, "both must be three numbers"),
        ({"model": "ViT-B-16", "weights": "random", "options": {"std": [1, 0, 1]}}, "std positive"),
        ({"model": "ViT-B-16", "weights": "random", "options": {"mean": "grey"}}, "options .* do not suit"),
        ({"model": "ViT-B-16", "weights": "random", "options": {"head_width": 0}}, "options .* do not suit"),
    ],
)
def test_mistakes(spec, sentence, tmp_path, monkeypatch):
    def none(repo, file, revision):
        raise errors.RepositoryNotFoundError("404", response=RESPONSE)

    monkeypatch.setattr(weights, "hf_hub_download", none)
    for name, text in (("broken", "{"), ("list", "[1]")):
        repository(tmp_path / name)
        (tmp_path / name / "open_clip_config.json").write_text(text)
    repository(tmp_path / "bare")
    (tmp_path / "bare" / "open_clip_model.safetensors").unlink()
    spec = {**spec, "model": spec["model"].format(tmp_path)}
    with pytest.raises(UserError, match=f"teacher t: .*{sentence}"):
        teachers.build("t", {"family": "clip", "levels": [0], **spec})


def test_without_a_network_the_sentence_says_what_to_fetch(monkeypatch):
    def offline(repo, file, revision):
        raise errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(weights, "hf_hub_download", offline)
    with pytest.raises(
        UserError, match=r"open_clip_config\.json elsewhere and give the folder that holds it and open_clip"
    ):
        build(model="hf-hub:someone/some-clip", options={})

"""What no shape tells of a network is noted with its weights, and compared where they are loaded."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import teachers
from sak.errors import UserError
from sak.tensors import metadata_of
from teachers import weights
from teachers.dinov2 import TORCH_HUB
from teachers.pretrain.miniatures import MINIATURES


def changed(name, **options):
    return dataclasses.replace(MINIATURES[name], options={**MINIATURES[name].options, **options})


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("dinov2", {"num_heads": 8}, "num_heads 4, but num_heads is 8 here"),
        ("dinov2", {"num_heads": 1}, "num_heads 4, but num_heads is 1 here"),
        ("clip", {"head_width": 16}, "num_heads 3, but num_heads is 6 here"),
        ("clip", {"pretrained": "openai"}, "activation GELU, but activation is QuickGELU here"),
        ("vit", {"num_heads": 2}, "num_heads 4, but num_heads is 2 here"),
        ("vit", {"act_layer": "relu"}, "activation GELU, but activation is ReLU here"),
        ("sam", {"num_heads": 6}, "num_heads 3, but num_heads is 6 here"),
        ("sam", {"use_rel_pos": True}, "lacks"),
        ("sam", {"global_attn_indexes": [7]}, r"window_size \[8, 8, 8, 0, 8, 8, 8, 0\], but window_size is \["),
    ],
)
def test_a_miniature_loads_into_its_own_architecture_alone(name, options, sentence):
    with pytest.raises(UserError, match=rf"teacher t: .*{name}\.safetensors .*{sentence}"):
        teachers.build("t", changed(name, **options))


@pytest.mark.parametrize("name", sorted(MINIATURES))
def test_the_miniatures_note_what_their_specification_builds(name):
    notes = json.loads(metadata_of(MINIATURES[name].weights)["sak_network"])
    options = MINIATURES[name].options
    assert notes["num_heads"] == (options["width"] // options["head_width"] if name == "clip" else options["num_heads"])
    assert notes["activation"] == "GELU"
    teacher = teachers.build(name, MINIATURES[name])
    for key in ("mean", "std"):
        assert torch.equal(getattr(teacher, key).flatten(), torch.tensor(notes[key]))


def test_what_is_saved_is_compared_and_what_notes_nothing_is_not(tmp_path):
    spec = teachers.TeacherSpec(
        family="timm", model="deit_tiny_patch16_224", weights="random", levels=[0],
        options={"embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": 8, "img_size": 32},
    )  # fmt: skip
    teacher = teachers.build("t", spec)
    weights.save(tmp_path / "w.safetensors", teacher.backbone.state_dict(), teacher.backbone, [0.5] * 3, [0.5] * 3)
    notes = json.loads(metadata_of(tmp_path / "w.safetensors")["sak_network"])
    assert notes == {
        "num_heads": 2, "activation": "GELU", "norm_eps": 1e-6, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]
    }  # fmt: skip
    written = (tmp_path / "w.safetensors").read_bytes()
    for _ in range(8):  # the same bytes each time
        weights.save(tmp_path / "w.safetensors", teacher.backbone.state_dict(), teacher.backbone, [0.5] * 3, [0.5] * 3)
        assert (tmp_path / "w.safetensors").read_bytes() == written
    loaded = dataclasses.replace(spec, weights=str(tmp_path / "w.safetensors"))
    assert teachers.build("t", loaded).report.loaded == len(teacher.backbone.state_dict())
    wrong = dataclasses.replace(loaded, options={**spec.options, "num_heads": 3})
    with pytest.raises(UserError, match="num_heads 2, but num_heads is 3 here"):
        teachers.build("t", wrong)
    tensors = load_file(tmp_path / "w.safetensors")
    save_file(tensors, tmp_path / "w.safetensors", {"sak_network": "{"})
    with pytest.raises(UserError, match=r"teacher t: the notes in the header of .*w\.safetensors cannot be read"):
        teachers.build("t", loaded)
    save_file(tensors, tmp_path / "w.safetensors", {"num_heads": "of somebody else's making"})
    assert teachers.build("t", wrong).report.loaded == len(teacher.backbone.state_dict())


@pytest.mark.parametrize(
    ("name", "width", "depth", "registers"),
    [
        ("dinov2_vits14", 384, 12, 0),
        ("dinov2_vitb14", 768, 12, 0),
        ("dinov2_vitb14_reg", 768, 12, 4),
        ("dinov2_vitl14_reg", 1024, 24, 4),
        ("dinov2_vitg14", 1536, 40, 0),
    ],
)
def test_torch_hubs_names_of_dinov2(name, width, depth, registers):
    spec = teachers.TeacherSpec(family="dinov2", model=name, weights="random", levels=[depth - 1])
    with torch.device("meta"):
        teacher = teachers.build("t", spec)
    assert teacher.dims == [width]
    assert teacher.patch_size == 14
    assert teacher.backbone.num_prefix_tokens == 1 + registers
    assert teacher.backbone.pretrained_cfg["hf_hub_id"] == f"timm/{TORCH_HUB[name]}"


def test_a_name_that_is_nearly_torch_hubs():
    with pytest.raises(UserError, match="unknown timm model 'dinov2_vitb16'"):
        teachers.build("t", teachers.TeacherSpec(family="dinov2", model="dinov2_vitb16"))

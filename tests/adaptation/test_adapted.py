"""Backbones with heads, as models and as bundles."""

import json

import pytest
import safetensors.torch
import torch
from omegaconf import OmegaConf

import teachers
from sak import Predictor, Student
from sak.adaptation import Adapted
from sak.bundles.bundle import load_bundle, load_student, save_bundle
from sak.bundles.change import trained_student
from sak.config.schema import FROZEN, METHODS
from sak.errors import UserError
from teachers.fingerprints import weights_hash

SPEC = {
    "family": "dinov2",
    "model": "vit_small_patch14_dinov2",
    "weights": "random",
    "levels": [1, 2],
    "options": {"img_size": 64, "patch_size": 16, "embed_dim": 24, "depth": 4, "num_heads": 2},
}
CLIP = {
    "family": "clip",
    "model": "ViT-B-16",
    "weights": "random",
    "levels": [0, 1],
    "options": {
        **{"image_size": 64, "patch_size": 16, "width": 32, "layers": 3, "head_width": 16, "embed_dim": 32},
        **{"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "quick_gelu": False},
    },
}
SAM = {
    "family": "sam",
    "model": "vit_b",
    "weights": "random",
    "levels": [0, 1],
    "options": {
        **{"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 3, "num_heads": 2, "window_size": 2},
        **{"global_attn_indexes": [1], "out_chans": 16},
    },
}


def adapted(method, spec=SPEC, **options):
    torch.manual_seed(0)
    reference = {"name": "backbone", "spec": spec, "sha256": None}
    return Adapted(reference, method, [64, 64], {"semseg": 3, "normals": 3}, rank=4, **options)


def moved(student):
    """With new values of all that learns."""
    with torch.no_grad():
        for weight in student.parameters():
            if weight.requires_grad:
                weight.add_(0.2 * torch.randn_like(weight))
    return student.eval()


@pytest.mark.parametrize("spec", [SPEC, CLIP, SAM], ids=lambda spec: spec["family"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_starts_with_exactly_the_backbones_features(method, spec):
    """To the last bit; where a gradient is wanted, torch computes open_clip's attention in another order."""
    images = torch.rand(2, 3, 64, 96)
    student = adapted(method, spec)
    for level, wanted in zip(student.features(images), teachers.build("backbone", spec)(images), strict=True):
        if spec is CLIP and method not in FROZEN:
            torch.testing.assert_close(level, wanted)
        else:
            assert torch.equal(level, wanted)


@pytest.mark.parametrize("spec", [SPEC, CLIP, SAM], ids=lambda spec: spec["family"])
@pytest.mark.parametrize("method", METHODS)
def test_all_that_is_to_learn_gets_a_gradient(method, spec):
    """And nothing else does: a process that waits for the gradient of an idle weight would wait for ever."""
    student = moved(adapted(method, spec)).train()
    output = student(torch.rand(2, 3, 64, 64))
    assert (output.paths, output.routing) == ({}, {})
    sum(maps.square().mean() for maps in output.predictions.values()).backward()
    for name, weight in student.named_parameters():
        assert (weight.grad is not None) == weight.requires_grad, name
    beyond = [n for n, w in student.stem.named_parameters() if w.requires_grad and ".3." in n]
    assert beyond == []  # of the last block, which no level reads


def test_what_each_method_trains():
    learned = {
        method: sum(weight.numel() for weight in adapted(method).stem.parameters() if weight.requires_grad)
        for method in METHODS
    }
    width, rank, blocks = 24, 4, 3  # up to the last level
    assert learned["linear"] == 0
    assert learned["losa"] == 2 * (2 * width + 2 * rank * width + 2 * 2 * rank * 4)
    assert learned["lora"] == blocks * rank * (width + 3 * width)
    assert learned["adapter"] == blocks * (2 * rank * width + rank + width)
    biases = width + blocks * (width + width + 3 * width + width + 4 * width + width)  # patches; norms, qkv, proj, MLP
    assert learned["bitfit"] == biases
    assert learned["full"] > 20 * learned["losa"]


@pytest.mark.parametrize("scales", [[1], [1, 2]])
@pytest.mark.parametrize("method", METHODS)
def test_a_bundle_holds_what_learns_and_comes_back(method, scales, tmp_path):
    if scales != [1] and method not in FROZEN:
        with pytest.raises(UserError, match=r"goes through a backbone at one scale, but backbone has the scales"):
            adapted(method, {**SPEC, "scales": scales})
        return
    student = moved(adapted(method, {**SPEC, "scales": scales}))
    save_bundle(student, tmp_path / "bundle")
    kept = safetensors.torch.load_file(tmp_path / "bundle" / "model.safetensors")
    of_backbone = {name for name in kept if name.startswith("stem.backbone.")}
    assert (len(of_backbone) > 0) == (method not in FROZEN)
    if method != "full":
        assert not any(name.endswith("patch_embed.proj.weight") for name in kept)
    loaded = load_bundle(tmp_path / "bundle")
    images = torch.rand(1, 3, 64, 96)
    for task, maps in student(images).predictions.items():
        assert torch.equal(loaded(images).predictions[task], maps)
    assert isinstance(loaded, Adapted)
    assert loaded.settings == student.settings
    picture = (255 * images[0].permute(1, 2, 0)).to(torch.uint8).numpy()
    assert Predictor(str(tmp_path / "bundle"))(picture)["semseg"].shape == (64, 96)


@pytest.mark.parametrize("method", ["linear", "losa", "lora"])
def test_a_bundle_refuses_other_weights(method, tmp_path):
    """The same file, other numbers in it: nothing else would tell."""
    file = tmp_path / "backbone.safetensors"
    backbone = teachers.build("backbone", SPEC).backbone
    safetensors.torch.save_file(backbone.state_dict(), file)
    student = adapted(method, {**SPEC, "weights": str(file)})
    save_bundle(student, tmp_path / "bundle")
    load_bundle(tmp_path / "bundle")
    state = backbone.state_dict()
    state["blocks.0.norm1.weight"][3] += 1e-3
    safetensors.torch.save_file(state, file)
    with pytest.raises(UserError, match=r"trained on a backbone backbone whose weights have the SHA-256 \w{16}, but"):
        load_bundle(tmp_path / "bundle")
    file.unlink()
    with pytest.raises(UserError, match=r"backbone\.safetensors"):
        load_bundle(tmp_path / "bundle")


def edited(bundle, change):
    settings = json.loads((bundle / "config.json").read_text())
    change(settings)
    (bundle / "config.json").write_text(json.dumps(settings))


def test_a_bundle_that_was_tampered_with(tmp_path):
    bundle = tmp_path / "bundle"
    student = adapted("losa")
    save_bundle(student, bundle)
    edited(bundle, lambda settings: settings["backbone"].update(sha256=None))
    with pytest.raises(UserError, match="does not say which weights its backbone must have"):
        load_bundle(bundle)
    save_bundle(student, bundle)
    edited(bundle, lambda settings: settings.update(method="lora"))
    with pytest.raises(UserError, match="cannot be read as a bundle"):
        load_bundle(bundle)
    save_bundle(student, bundle)
    state = safetensors.torch.load_file(bundle / "model.safetensors")
    state["stem.backbone.backbone.cls_token"] = torch.zeros(1, 1, 24)
    safetensors.torch.save_file(state, bundle / "model.safetensors")
    with pytest.raises(UserError, match="belongs to the frozen backbone"):
        load_bundle(bundle)
    with pytest.raises(ValueError, match="unknown key 'backbone'"):
        Student.from_pretrained(bundle)


def test_the_hash_is_of_the_backbone_as_it_was_before_the_method_changed_it():
    plain = weights_hash(teachers.build("backbone", SPEC))
    for method in METHODS:
        assert adapted(method).origin == plain
        named = adapted(method).settings["backbone"]["sha256"]
        assert named == (None if method == "full" else plain)


def test_maps_that_are_known_stand_for_the_backbone():
    for method in FROZEN:
        student = moved(adapted(method))
        images = torch.rand(2, 3, 64, 64)
        maps = student.backbone(images)
        student.stem.backbone = None  # is not asked
        student(images, maps=maps)
        with pytest.raises(AttributeError):
            student(images)


def test_the_stem_of_a_trained_student_is_a_backbone(trained):
    spec = {"family": "student", "model": str(trained), "levels": [1, 3]}
    student = Student.from_pretrained(trained / "student").eval()
    images = torch.rand(1, 3, 96, 96)
    wanted = [student.features(images)[level] for level in (1, 3)]
    for method in METHODS:
        torch.manual_seed(0)
        found = Adapted({"name": "stem", "spec": spec}, method, [96, 96], {"semseg": 3}, rank=4)
        for level, map_ in zip(found.features(images), wanted, strict=True):
            torch.testing.assert_close(level, map_)


@pytest.mark.parametrize(
    ("method", "changes", "sentence"),
    [
        ("losa", {"rank": 25}, "rank is 25, but must be from 1 to 24"),
        ("lora", {"rank": 25}, "rank is 25, but must be from 1 to 24"),
        ("adapter", {"rank": 25}, "rank is 25, but must be from 1 to 24"),
        ("losa", {"levels": [3]}, "the level 3 is none of the taps"),
        ("full", {"spec": {**SPEC, "dtype": "bfloat16"}}, "full trains weights, which must be float32"),
        ("losa", {"spec": {**SPEC, "levels": [1, 4]}}, "levels"),
    ],
)
def test_wrong_options(method, changes, sentence):
    arguments = {"spec": SPEC, "rank": 4, **changes}
    spec = arguments.pop("spec")
    with pytest.raises(UserError, match=sentence):
        Adapted({"name": "backbone", "spec": spec}, method, [64, 64], {"semseg": 3}, **arguments)


def test_an_unknown_method():
    with pytest.raises(ValueError, match="unknown method 'prefix'; known: linear, losa"):
        adapted("prefix")


def test_what_is_about_students_refuses_it(tmp_path):
    save_bundle(adapted("losa"), tmp_path / "bundle")
    for place in (load_student, load_path_owner):
        with pytest.raises(
            UserError, match=r"is the backbone backbone with heads \(losa\), but a student is needed here"
        ):
            place(tmp_path / "bundle")


def load_path_owner(place):
    return trained_student(
        OmegaConf.create(
            {
                "student": {"weights": str(place), "add_teacher": "a", "update_teacher": None, "remove_teacher": None},
                "stages": {"multitask": {"steps": 1}},
            }
        )
    )

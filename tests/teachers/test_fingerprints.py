"""The keys of caches: whatever changes features changes them, and nothing else does."""

import dataclasses
import hashlib
import importlib
import json
import sys
from importlib import metadata
from pathlib import Path

import pytest
from PIL import Image

import teachers
from sak import config
from sak.bundles.build import build_committee, build_labelled, build_training_set
from sak.distillation.cached_features import build_caches
from teachers import fingerprints
from teachers.fingerprints import code_of, contents_hash, spec_facts, teacher_facts

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "pascal_format" / "PASCALContext"
SAM = teachers.TeacherSpec(
    family="sam", model="vit_b", weights="random", levels=[0, 1],
    options={"img_size": 48, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "window_size": 3,
             "global_attn_indexes": [1], "out_chans": 8},
)  # fmt: skip
DINOV2 = teachers.TeacherSpec(
    family="dinov2", model="vit_small_patch14_dinov2", weights="random", levels=[0],
    options={"img_size": 28, "patch_size": 7, "embed_dim": 24, "depth": 2, "num_heads": 2},
)  # fmt: skip


@pytest.fixture
def settings(tiny, tmp_path):
    def load(*overrides):
        return config.load(
            tiny, ["cache.views=2", f"cache.path={tmp_path / 'cache'}", "cache.stages=[distill,multitask]", *overrides]
        )

    return load


def caches(settings, stage):
    dataset = build_labelled(settings)
    return build_caches(settings, stage, dataset.image_files, build_committee(settings), dataset.crop_files)


# --- what was keyed rightly -------------------------------------------------------------------------------------------


def test_features_that_were_keyed_rightly_are_found_again(settings, monkeypatch):
    """The first stage with a library's teacher at a size that nothing changed for: the key of the first caches."""
    monkeypatch.setattr(fingerprints, "FIRST_LIBRARIES", {"timm": metadata.version("timm")})
    committee = build_committee(settings())
    dataset = build_labelled(settings())
    cache = build_caches(settings(), "distill", dataset.image_files, committee)["dinov2"]
    description = {
        "format": 1, "teacher": "dinov2", "record": [[f"level{level}", "<f2", (24, 6, 6)] for level in range(4)],
        "images": 2, "records_per_file": 2**30 // (4 * 24 * 36 * 2),
        "files": fingerprints.files_hash(dataset.image_files),
        "image_size": [96, 96], "seed": 0, "crop_scale": [0.08, 1.0], "precision": "no",
        "spec": {
            "family": "dinov2", "model": "vit_small_patch14_dinov2", "levels": [0, 1, 2, 3], "input_size": None,
            "input_stats": "own", "dtype": "float32", "scales": [1], "resize_to": "first",
            "options": {"img_size": 96, "patch_size": 16, "embed_dim": 24, "depth": 4, "num_heads": 2},
        },
        "weights": fingerprints.weights_hash(committee["dinov2"]),
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]
    assert cache.directory.name == f"dinov2-{digest}"


def test_younger_settings_are_part_of_a_key_where_they_are_used():
    assert spec_facts({"model": "x", "fit": "resize", "interpolation": "bilinear"}) == {"model": "x"}
    assert spec_facts({"model": "x", "fit": "crop", "interpolation": "bicubic"}) == {
        "model": "x", "fit": "crop", "interpolation": "bicubic"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "size", "changes"),
    [
        (SAM, (48, 48), []),
        (SAM, (32, 48), []),
        (SAM, (28, 36), ["shorter side at whole patches"]),
        (dataclasses.replace(SAM, input_size="native"), (28, 36), []),
        (dataclasses.replace(SAM, scales=[1, 2]), (96, 96), []),
        (dataclasses.replace(SAM, scales=[1, 2]), (120, 120), ["antialiased where a scale shrinks"]),
        (dataclasses.replace(DINOV2, input_size=28, scales=[1, 3]), (84, 84), []),
        (dataclasses.replace(DINOV2, input_size=28, scales=[1, 3]), (91, 84), ["antialiased where a scale shrinks"]),
        (DINOV2, (31, 28), []),
    ],
)
def test_where_our_own_code_changed_features_the_key_says_how(spec, size, changes):
    facts = teacher_facts(teachers.build("t", spec), size)
    assert facts.get("changes", []) == changes


@pytest.mark.parametrize(("spec", "library"), [(DINOV2, "timm"), (SAM, "segment-anything")])
def test_another_version_of_the_library_is_another_key(spec, library, monkeypatch):
    teacher = teachers.build("t", spec)
    monkeypatch.setattr(fingerprints, "FIRST_LIBRARIES", {library: metadata.version(library)})
    before = teacher_facts(teacher, (48, 48))
    assert before.keys() == {"weights"}
    monkeypatch.setattr(fingerprints.metadata, "version", lambda name: "99.1")
    assert teacher_facts(teacher, (48, 48)) == {**before, "libraries": {library: "99.1"}}


# --- a class of one's own ---------------------------------------------------------------------------------------------

FILES = {
    "eyes/__init__.py": "",
    "eyes/teacher.py": (
        "from teachers import Teacher\nfrom eyes.net import Net\nfrom . import sizes\nimport lonely_helper\n\n"
        "class Base(Teacher):\n    def __init__(self, name, spec):\n"
        "        half = [0.5] * 3\n"
        "        super().__init__(name, spec, Net(), widths=[3], strides=[sizes.PATCH], mean=half, std=half)\n"
        "    def features(self, inputs):\n        from eyes.late import pool\n        return [pool(inputs)]\n"
    ),
    "eyes/net.py": "from torch import nn\nfrom .deeper.parts import Linear\nclass Net(nn.Module):\n    pass\n",
    "eyes/deeper/__init__.py": "",
    "eyes/deeper/parts.py": "from torch.nn import Linear\n",
    "eyes/sizes.py": "PATCH = 8\n",
    "eyes/late.py": "import torch.nn.functional as F\ndef pool(x):\n    return F.avg_pool2d(x, 8)\n",
    "eyes/unused.py": "NOTHING = 1\n",
    "lonely_helper.py": "import json\nfrom spaces.inside import VALUE\n",
    "spaces/inside.py": "VALUE = 1\n",  # a folder without __init__.py
}


@pytest.fixture
def outside(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for module in [name for name in sys.modules if name.partition(".")[0] in ("eyes", "lonely_helper", "spaces")]:
        del sys.modules[module]
    importlib.invalidate_caches()


def key():
    teacher = teachers.build("t", {"family": "eyes.teacher:Base", "model": "m", "levels": [0]})
    return teacher_facts(teacher, (32, 32))


def test_the_code_of_a_class_and_of_all_that_it_imports_is_part_of_the_key(outside):
    before = key()
    assert sorted(before["code"]) == sorted(
        ["eyes", "eyes.teacher", "eyes.net", "eyes.sizes", "eyes.late", "eyes.deeper", "eyes.deeper.parts",
         "lonely_helper", "spaces.inside", "torch"]
    )  # fmt: skip
    assert before["code"]["torch"] == metadata.version("torch")
    for name in sorted(FILES):
        text = (outside / name).read_text()
        (outside / name).write_text(text + "# changed\n")
        assert (key() != before) == (name != "eyes/unused.py"), name
        (outside / name).write_text(text)
    assert key() == before


def test_another_version_of_an_installed_package_that_it_imports_is_another_key(outside, monkeypatch):
    before = key()
    real = metadata.version
    monkeypatch.setattr(fingerprints.metadata, "version", lambda name: "99" if name == "torch" else real(name))
    after = key()
    assert {name for name in after["code"] if after["code"][name] != before["code"][name]} == {"torch"}


def test_a_class_of_an_installed_package_is_told_by_its_source():
    assert "json.decoder" in code_of(json.JSONDecoder)
    code = code_of(Image.Image)  # of pillow
    assert len(code["PIL.Image"]) == 64
    assert "numpy" not in code or code["numpy"] == metadata.version("numpy")


def test_a_family_of_ours_needs_no_code_in_its_key():
    assert "code" not in teacher_facts(teachers.build("t", DINOV2), (28, 28))


# --- the maps that decide the crops -----------------------------------------------------------------------------------


def flip(file):
    """Another map of the same size in bytes: the list of files would not see it."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("overrides", "folder", "another"),
    [
        ([], "semseg", True),
        ([], "sal_distill", False),
        ([], "normals_distill", False),
        (["data.tasks=[saliency]"], "semseg", False),
        (["stages.multitask.augment=false"], "semseg", False),
    ],
)
def test_the_second_stages_key_holds_the_maps_that_decide_its_crops(settings, archive, overrides, folder, another):
    chosen = settings(f"data.root={archive}", *overrides)
    before = caches(chosen, "multitask")["dinov2"].directory
    for file in sorted((archive / folder).rglob("*.png")):
        flip(file)
    assert (caches(chosen, "multitask")["dinov2"].directory != before) == another


def test_the_first_stage_crops_by_no_label(settings):
    for images in (None, str(ARCHIVE / "JPEGImages")):
        chosen = settings() if images is None else settings(f"stages.distill.images={images}")
        assert build_training_set(chosen, "distill", lambda chosen=chosen: build_labelled(chosen)).crop_files == []


def test_contents_are_told_apart_in_their_order(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"ab")
    two.write_bytes(b"c")
    assert (
        len({contents_hash(files) for files in ([one, two], [two, one], [one], [two], [], [one, tmp_path / "x"])}) == 6
    )
    before = contents_hash([one, two])
    one.write_bytes(b"a")
    two.write_bytes(b"bc")
    assert contents_hash([one, two]) != before

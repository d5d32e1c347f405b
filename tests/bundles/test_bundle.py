"""Bundles: what is on disk, what is refused, and that each refusal is one sentence."""

import json
import os
import socket
import stat
import time

import huggingface_hub.hub_mixin
import pytest
import safetensors.torch
import torch
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from sak import Student, config
from sak.bundles.build import build_student, build_tasks, start_from_weights
from sak.bundles.bundle import load_bundle, save_bundle
from sak.errors import UserError
from sak.student import hub


@pytest.fixture
def student():
    tiny = {"levels": [0, 1], "stem_options": {"patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}}
    return Student("vit_tiny_patch16_384", [32, 32], {"semseg": 5}, {"dinov2": [24, 24]}, **tiny).eval()


@pytest.fixture
def bundle(student, tmp_path):
    save_bundle(student, tmp_path / "bundle", keep_aligners=True)
    return tmp_path / "bundle"


def settings(bundle):
    return json.loads((bundle / "config.json").read_text())


def test_a_bundle_says_its_format_and_is_readable_as_the_umask_says(bundle, student):
    assert settings(bundle)["format"] == 2
    umask = os.umask(0)
    os.umask(umask)
    for file in bundle.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask, file
    again = load_bundle(bundle)
    assert "format" not in again.settings
    for key, value in again.state_dict().items():
        assert torch.equal(value, student.state_dict()[key])


def test_so_says_one_that_the_library_itself_saves(student, tmp_path):
    student.save_pretrained(tmp_path / "saved")
    assert settings(tmp_path / "saved")["format"] == 2
    Student.from_pretrained(tmp_path / "saved").save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "saved" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_bundle_from_before_there_were_formats_loads(bundle):
    old = {key: value for key, value in settings(bundle).items() if key != "format"}
    (bundle / "config.json").write_text(json.dumps(old))
    assert load_bundle(bundle).sources == ("stem", "dinov2")


def test_so_does_one_from_before_an_argument_with_a_default(bundle):
    old = {key: value for key, value in settings(bundle).items() if key != "router_temperature"}
    (bundle / "config.json").write_text(json.dumps(old))
    assert load_bundle(bundle).settings["router_temperature"] == 1.0


def edited(**changes):
    def edit(bundle):
        content = {**settings(bundle), **changes}
        (bundle / "config.json").write_text(json.dumps({k: v for k, v in content.items() if v != "gone"}))

    return edit


def written(name, content):
    return lambda bundle: (bundle / name).write_bytes(content)


def without(name):
    return lambda bundle: (bundle / name).unlink()


def tensors(change):
    def edit(bundle):
        weights = safetensors.torch.load_file(bundle / "model.safetensors")
        safetensors.torch.save_file(change(weights), bundle / "model.safetensors")

    return edit


def shortened(bundle):
    os.truncate(bundle / "model.safetensors", 5000)


REFUSED = {
    "newer": (edited(format=3), r"has been written by a newer sak \(format 3, known: 1 and 2\): update sak"),
    "of no format": (edited(format="x"), r"format 'x', known: 1 and 2"),
    "unknown key": (edited(wings=2), "has the unknown key 'wings'"),
    "of another library": (edited(model_type="bert"), "has the unknown key 'model_type'"),
    "no stem": (edited(stem="gone"), r"cannot be read as a bundle \(.*stem"),
    "levels that are no list": (edited(levels=3), "cannot be read as a bundle"),
    "levels beyond the stem": (edited(levels=[0, 7]), "must be increasing block indices"),
    "unknown stem": (edited(stem="vit_of_nobody"), "vit_of_nobody"),
    "no JSON": (written("config.json", b"{"), r"cannot be read as a bundle \("),
    "no object": (written("config.json", b"[1]"), "cannot be read as a bundle"),
    "no text": (written("config.json", b"\xff\xfe"), "cannot be read as a bundle"),
    "empty": (written("model.safetensors", b""), "cannot be read as a bundle"),
    "no weights": (without("model.safetensors"), "is no bundle: it has no model.safetensors"),
    "no config": (without("config.json"), "is no bundle: it has no config.json"),
    "truncated": (shortened, "cannot be read as a bundle"),
    "a weight less": (
        tensors(
            lambda w: {
                k: v for k, v in w.items() if k != "stem.vit.norm_pre.weight" and "semseg.classify.bias" not in k
            }
        ),
        "Missing key",
    ),
    "a weight more": (tensors(lambda w: {**w, "x": torch.ones(1)}), "Unexpected key"),
    "a weight of another size": (
        tensors(lambda w: {k: v[:1] if v.dim() else v for k, v in w.items()}),
        "size mismatch",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_bundle_of_ours_is_one_sentence(bundle, case):
    make, message = REFUSED[case]
    make(bundle)
    with pytest.raises(hub.BundleError, match=message) as plain:
        Student.from_pretrained(bundle)
    with pytest.raises(UserError, match=message) as told:
        load_bundle(bundle)
    assert str(plain.value) == str(told.value)
    assert str(plain.value).startswith(str(bundle))
    assert "\n" not in str(plain.value)
    assert len(str(plain.value)) < 500


@pytest.mark.parametrize(
    "place", ["nowhere", "/no/such/place", "a/b/c", "", "a b/c", "../x", "https://huggingface.co/a/b"]
)
def test_a_place_that_is_none_is_told_at_once(place, monkeypatch, tmp_path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # beside which there is nothing
    monkeypatch.setattr(hub, "reachable", None)  # must not be asked
    with pytest.raises(hub.BundleError, match="is no bundle: give a directory with config"):
        Student.from_pretrained(place)


def test_what_is_here_needs_no_hub(bundle, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("asked the hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert Student.from_pretrained(bundle).sources == ("stem", "dinov2")
    assert constants.HF_HUB_OFFLINE is False


def test_a_file_is_no_bundle(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(hub.BundleError, match="is no bundle: give a directory"):
        Student.from_pretrained(tmp_path / "file")


def test_without_a_connection_nothing_is_waited_for(monkeypatch):
    """The client would try six times, for 23 seconds."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.urllib.request, "getproxies", dict)

    def unreachable(address, timeout):
        assert (address, timeout) == (("huggingface.co", 443), 3)
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waited"))
    with pytest.raises(hub.BundleError, match=r"^nobody/nothing does not exist here, .*the hub cannot be reached, and"):
        Student.from_pretrained("nobody/nothing")


@pytest.mark.parametrize(
    ("proxies", "endpoint", "answers", "expected"),
    [
        ({}, "https://huggingface.co", True, True),
        ({}, "http://mirror:8080", True, True),
        ({}, "https://huggingface.co", False, False),
        ({"https": "http://proxy:3128"}, "https://huggingface.co", False, True),
    ],
)
def test_whether_the_hub_can_be_reached(monkeypatch, proxies, endpoint, answers, expected):
    asked = []

    class Connection:
        def __init__(self, address, timeout):
            asked.append(address)
            if not answers:
                raise TimeoutError

        def close(self):
            pass

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(hub.urllib.request, "getproxies", lambda: proxies)
    monkeypatch.setattr(socket, "create_connection", Connection)
    assert hub.reachable() is expected
    assert asked == ([] if proxies else [("mirror", 8080) if "mirror" in endpoint else ("huggingface.co", 443)])


@pytest.mark.parametrize("kind", [LocalEntryNotFoundError, RepositoryNotFoundError, ConnectionError, PermissionError])
def test_what_the_hub_s_client_raises_is_one_sentence(monkeypatch, kind):
    error = kind.__new__(kind)
    error.args = ("first line\nsecond line\nthird line",)

    def failing(*_, **__):
        assert constants.HF_HUB_OFFLINE
        raise error

    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.setattr(huggingface_hub.hub_mixin, "hf_hub_download", failing)
    with pytest.raises(UserError, match="nobody/nothing does not exist here, and from the hub cannot be read") as told:
        load_bundle("nobody/nothing")
    assert "\n" not in str(told.value)


def test_a_disk_that_is_full_leaves_the_bundle_that_was_there(bundle, student, monkeypatch):
    before = {file.name: file.read_bytes() for file in bundle.iterdir()}

    def full(model, file):
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_model", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        save_bundle(student, bundle)
    assert error.value.filename == str(bundle)
    assert {file.name: file.read_bytes() for file in bundle.iterdir()} == before
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_neither_does_a_pretrained_stem_wait(tiny, monkeypatch):
    settings = config.load(tiny, ["student.pretrained=true", "data.tasks=[semseg]"])
    student = build_student(settings, build_tasks(settings.data), {})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waited"))
    with pytest.raises(UserError, match="neither cached nor to be downloaded"):
        start_from_weights(student, settings)

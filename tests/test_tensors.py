"""Files of weights as they come: of several kinds, under any name, corrupt, or with code inside."""

import argparse
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sak.errors import UserError
from sak.tensors import metadata_of, read_tensors

WEIGHTS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3, dtype=torch.int64)}


class Attack:
    """What a pickle may do where code is loaded."""

    def __reduce__(self):
        return os.mkdir, ("attacked",)


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 2)
        self.blocks = nn.Sequential(nn.Linear(4, 4), nn.Identity(), nn.BatchNorm1d(4))
        self.register_buffer("resolution", torch.tensor(32))
        self.scale = nn.Parameter(torch.tensor(0.5, dtype=torch.float16))

    def forward(self, x):
        return self.blocks(self.conv(x).mean((2, 3))) * self.scale


def equal(ours, theirs):
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype for key in theirs
    )


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "weights", "weights.bin"])
def test_the_content_decides_what_a_file_is(tmp_path, name):
    save_file(WEIGHTS, tmp_path / name, {"note": "x"})
    assert equal(read_tensors(tmp_path / name), WEIGHTS)
    assert metadata_of(tmp_path / name) == {"note": "x"}
    torch.save(WEIGHTS, tmp_path / name)
    assert equal(read_tensors(tmp_path / name), WEIGHTS)
    assert metadata_of(tmp_path / name) == {}
    torch.save(WEIGHTS, tmp_path / name, _use_new_zipfile_serialization=False)
    assert equal(read_tensors(tmp_path / name), WEIGHTS)


def test_what_trainings_leave_beside_weights_is_read(tmp_path):
    content = {
        "model": WEIGHTS, "epoch": 3, "args": argparse.Namespace(lr=0.1, name="run"), "best": np.float64(0.5),
        "seen": np.int64(7), "history": [0.1, None, "x"], "rng": torch.get_rng_state(),
    }  # fmt: skip
    torch.save(content, tmp_path / "checkpoint.pth")
    read = read_tensors(tmp_path / "checkpoint.pth")
    assert equal(read["model"], WEIGHTS)
    assert (read["args"].lr, read["best"], read["seen"]) == (0.1, 0.5, 7)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("make", ["script", "trace"])
def test_a_torchscript_archive_is_its_state_dict(tmp_path, make):
    module = Part().eval()
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.normal_()
    scripted = torch.jit.script(module) if make == "script" else torch.jit.trace(module, torch.rand(1, 3, 8, 8))
    scripted.save(tmp_path / "module.pt")
    assert equal(read_tensors(tmp_path / "module.pt"), dict(module.state_dict()))
    with torch.device("meta"):  # as the doctor builds its models
        assert equal(read_tensors(tmp_path / "module.pt"), dict(module.state_dict()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["torch", "legacy", "torchscript"])
def test_code_is_refused_and_never_run(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    if kind == "torchscript":
        torch.jit.script(Part()).save("good.pt")
        with zipfile.ZipFile("good.pt") as good, zipfile.ZipFile("weights.pt", "w") as bad:
            for name in good.namelist():
                bad.writestr(name, pickle.dumps(Attack(), 2) if name.endswith("/data.pkl") else good.read(name))
    else:
        torch.save({**WEIGHTS, "x": Attack()}, "weights.pt", _use_new_zipfile_serialization=kind == "torch")
    with pytest.raises(UserError, match=r"weights\.pt cannot be read as weights: .* holds code, which is never loaded"):
        read_tensors("weights.pt")
    assert not os.path.exists("attacked")


def content(kind, tmp_path):
    file = tmp_path / "whole"
    if kind.endswith("safetensors"):
        save_file(WEIGHTS, file)
    else:
        torch.save(WEIGHTS, file, _use_new_zipfile_serialization="legacy" not in kind)
    return file.read_bytes()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("cut.safetensors", lambda tmp_path: content("safetensors", tmp_path)[:-5], "is corrupt or cut short"),
        ("header.safetensors", lambda tmp_path: content("safetensors", tmp_path)[:30], "is corrupt or cut short"),
        (
            "flipped.safetensors",
            lambda tmp_path: content("safetensors", tmp_path).replace(b"dtype", b"dtipe"),
            "is corrupt or cut short",
        ),
        ("cut.pth", lambda tmp_path: content("torch", tmp_path)[:-300], "is corrupt or cut short"),
        ("cut-legacy.pth", lambda tmp_path: content("legacy", tmp_path)[:60], "is corrupt or cut short"),
        ("text.pth", lambda tmp_path: b"hello there", "begins with b'hello the'; if it was downloaded"),
        ("page.pth", lambda tmp_path: b"<!DOCTYPE html>", "neither a safetensors file nor one of torch"),
        ("lfs.safetensors", lambda tmp_path: b"version https://git-lfs.github.com/spec/v1", "begins with b'version h'"),
        ("empty.pth", lambda tmp_path: b"", "nor one of torch, but empty"),
        ("zeros.safetensors", lambda tmp_path: bytes(100), "nor one of torch"),
        ("zip.pth", lambda tmp_path: b"PK\x03\x04 and no more", "is corrupt or cut short"),
    ],
)
def test_damage_is_one_sentence_of_ours(tmp_path, name, make, sentence):
    (tmp_path / name).write_bytes(make(tmp_path))
    with pytest.raises(UserError, match=rf"{name} cannot be read as weights: it .*{sentence}") as raised:
        read_tensors(tmp_path / name)
    assert "\n" not in str(raised.value)
    assert "weights_only" not in str(raised.value)


def test_a_module_saved_whole_is_told_what_to_do_without_torchs_advice(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(UserError, match="save the state_dict of its model alone") as raised:
        read_tensors(tmp_path / "module.pth")
    assert "weights_only" not in str(raised.value)


def test_what_cannot_be_opened(tmp_path):
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "nothing", "No such file or directory")):
        with pytest.raises(UserError, match=f"{path} cannot be read as weights: {reason}"):
            read_tensors(path)

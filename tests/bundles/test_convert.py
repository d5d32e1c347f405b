"""Published checkpoints as bundles: the same outputs, to the bit."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

import sak
from sak import cli
from sak.bundles.convert import convert_official
from sak.errors import UserError

ROOT = Path(__file__).parents[2]
PARITY = ROOT / "tests" / "fixtures" / "parity"


@pytest.fixture(params=["pascal_a", "nyud_a"])
def checkpoint(request, tmp_path):
    """(file, {"image_size", "num_heads"}, the published code's inputs and outputs)."""
    tensors = safetensors.torch.load_file(PARITY / f"{request.param}.safetensors")
    weights = {k.removeprefix("weights/"): v for k, v in tensors.items() if k.startswith("weights/")}
    torch.save({"model": weights, "epoch": 3}, tmp_path / "official.pth")
    numbers = json.loads((PARITY / f"{request.param}.json").read_text())
    fits = {"image_size": tuple(numbers["image_size"]), "num_heads": numbers["num_heads"]}
    return tmp_path / "official.pth", fits, tensors


def outputs(student, tensors):
    with torch.no_grad():
        out = student.eval()(tensors["input/image"] * student.std + student.mean)
    flat = {f"task/{task}": value for task, value in out.predictions.items()}
    flat |= {f"path/{t}/{level}": value for t, levels in out.paths.items() for level, value in enumerate(levels)}
    return flat | {f"routing/{t}/{level}": v for t, levels in out.routing.items() for level, v in enumerate(levels)}


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_bundle_gives_the_same_bits(checkpoint, tmp_path):
    path, fits, tensors = checkpoint
    convert_official(path, tmp_path / "bundle", **fits)
    official, bundle = sak.load_official(path, **fits), sak.Student.from_pretrained(tmp_path / "bundle")
    assert_same(outputs(official, tensors), outputs(bundle, tensors))
    assert (bundle.sources, bundle.channels, bundle.image_size) == (
        official.sources,
        official.channels,
        fits["image_size"],
    )
    assert official.state_dict().keys() == bundle.state_dict().keys()  # aligners among them, where there are any
    torch.testing.assert_close(
        outputs(bundle, tensors)["path/sam/3"], tensors["output/aligned/sam/3"], rtol=1e-4, atol=1e-4
    )
    assert [entry.name for entry in tmp_path.iterdir() if "partial" in entry.name] == []


def test_aligners_go_only_when_asked_and_predictions_stay(checkpoint, tmp_path):
    path, fits, tensors = checkpoint
    convert_official(path, tmp_path / "bundle", **fits, keep_aligners=False)
    bundle = sak.Student.from_pretrained(tmp_path / "bundle")
    assert not any("aligners" in key for key in bundle.state_dict())
    whole, dropped = (outputs(s, tensors) for s in (sak.load_official(path, **fits), bundle))
    kept = [key for key in whole if not key.startswith("path/")]
    assert all(torch.equal(whole[key], dropped[key]) for key in kept)


def test_stage_one(checkpoint, tmp_path):
    path, fits, tensors = checkpoint
    weights = torch.load(path, weights_only=True)["model"]
    bare = {k: v for k, v in weights.items() if not k.startswith(("heads.", "backbone.mor."))}
    safetensors.torch.save_file(bare, tmp_path / "stage_1.safetensors")
    convert_official(tmp_path / "stage_1.safetensors", tmp_path / "bundle", **fits)
    bundle = sak.Student.from_pretrained(tmp_path / "bundle")
    assert bundle.channels == {}
    assert_same(outputs(bundle, tensors), outputs(sak.load_official(tmp_path / "stage_1.safetensors", **fits), tensors))


def test_mistakes_through_the_tool(checkpoint, tmp_path, monkeypatch, capsys):
    path, fits, _ = checkpoint
    weights = torch.load(path, weights_only=True)["model"]
    torch.save({**weights, "backbone.surprise": torch.zeros(1)}, tmp_path / "leftover.pth")
    lacking = "backbone.tsap.clip.4.up.weight"
    torch.save({k: v for k, v in weights.items() if k != lacking}, tmp_path / "lacking.pth")
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").write_text("")
    fit = ("--image-size", *fits["image_size"], "--num-heads", fits["num_heads"])
    other = "nyud" if "heads.sal.last_conv.weight" in weights else "pascal_context"
    for arguments, message in (
        (("leftover.pth", "out", *fit), "leftover.pth: 1 weights are left over, the first is backbone.surprise"),
        (("lacking.pth", "out", *fit), r"lacking.pth: 1 weights are missing.*clip\.adapters\.4\.up\.weight"),
        (("official.pth", "out", "--image-size", 64, 64, "--num-heads", 4), "position embedding has .* but 64x64"),
        (("official.pth", "out", *fit, "--dataset", other), f"has no task|{other} needs"),
        (("official.pth", "out", *fit, "--dataset", "coco"), "unknown data set 'coco'"),
        (("official.pth", "taken", *fit), "taken exists already"),
        (("official.pth", "file/out", *fit), "file cannot be used"),
        (("missing.pth", "out"), "no checkpoint at missing.pth"),
    ):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["convert_official.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.run(runpy.run_path(str(ROOT / "tools" / "convert_official.py"))["main"])
        out, err = capsys.readouterr()
        assert (stop.value.code, out, err.count("\n")) == (2, "", 1), err
        assert re.search(message, err), err
        assert not (tmp_path / "out").exists()


def test_a_bundle_that_exists_is_not_replaced(checkpoint, tmp_path):
    path, fits, _ = checkpoint
    convert_official(path, tmp_path / "bundle", **fits)
    with pytest.raises(UserError, match="bundle exists already"):
        convert_official(path, tmp_path / "bundle", **fits)

"""The command that trains a miniature: what makes no training is refused before anything is read or written."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file


def contents(folder):
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in Path(folder).rglob("*") if file.is_file()
    }


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["sam", "--steps", "-1"], "--steps: '-1' is no whole number from 1 to"),
        (["dinov2", "--steps", "0"], "--steps: '0' is no whole number from 1 to"),
        (["clip", "--batch-size", "0"], "--batch-size: '0' is no whole number from 2 to"),
        (["clip", "--batch-size", "1"], "--batch-size: '1' is no whole number from 2 to"),
        (["vit", "--batch-size", "-8"], "--batch-size: '-8' is no whole number"),
        (["dinov2", "--steps", "1"], "--steps is 1, but dinov2 learns in 2 phases"),
        (["vit", "--width", "7"], "--width: '7' is no whole number from 8 to"),
        (["vit", "--device", "cuda:77"], "--device cuda:77 cannot be used here"),
        (["vit", "--export"], "there is no checkpoint work/vit.pt to export"),
        (["dinov2", "--seed", "-1"], "--seed: '-1' is no whole number from 0 to"),
        (["dinov2", "--seed", str(2**63)], "--seed: '9223372036854775808' is no whole number"),
        (["dinov2", "--threads", "0"], "--threads: '0' is no whole number from 1 to"),
        (["dinov2", "--threads", "100000"], "--threads: '100000' is no whole number"),
        (["dino", "--steps", "1"], "unknown miniature 'dino'; did you mean dinov2?"),
        (["sam", "--init", "nowhere.pt"], "there is no checkpoint nowhere.pt to go on from"),
        (["sam", "--init", "corrupt.safetensors"], "corrupt.safetensors cannot be read as weights"),
        (["sam", "--init", "mini/sam.safetensors"], "mini/sam.safetensors is no checkpoint of a pretraining"),
        (["sam", "--data", "nowhere"], "there is no nowhere/unlabelled/scenes.json"),
    ],
)
def test_what_makes_no_training_is_refused_and_changes_nothing(call_tool, tmp_path, options, sentence):
    (tmp_path / "mini").mkdir()
    save_file({"shipped": torch.ones(3)}, tmp_path / "mini" / f"{options[0]}.safetensors")
    (tmp_path / "mini" / f"{options[0]}.md").write_text("the card")
    (tmp_path / "corrupt.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    before = contents(tmp_path)
    data = [] if "--data" in options else ["--data", "archive"]
    code, _, errors = call_tool("pretrain_teachers", *options, *data, "--output", "mini", "--work", "work")
    assert code == 2
    assert len(errors) == 1
    assert sentence in errors[0]
    assert contents(tmp_path) == before
    assert not (tmp_path / "work").exists()

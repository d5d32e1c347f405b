"""Paths as files of their own."""

import hashlib
import json
import runpy
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sak import Student
from sak.bundles import path_files
from sak.bundles.bundle import load_bundle, save_bundle
from sak.errors import UserError

TOOL = Path(__file__).parents[2] / "tools" / "paths.py"


def student(seed, stem_seed=0):
    """Two teachers; students of one stem_seed have one stem."""
    torch.manual_seed(seed)
    made = Student(
        "vit_tiny_patch16_384",
        (64, 64),
        {"edge": 1},
        {"a": [24, 24], "b": [32, 32]},
        levels=[0, 1],
        stem_options={"patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2},
    )
    generator = torch.Generator().manual_seed(stem_seed)
    with torch.no_grad():
        for weight in made.stem.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) / 10)
    return made.eval()


@pytest.fixture
def bundles(tmp_path):
    """Of two students with one stem, and of one with another; the second one without aligners."""
    places = [tmp_path / name for name in ("first", "second", "foreign")]
    for place, made, aligned in zip(places, (student(1), student(2), student(1, 1)), (True, False, True), strict=True):
        save_bundle(made, place, keep_aligners=aligned)
    return places


def tensors(place):
    return safetensors.torch.load_file(place / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_file_holds_one_path_and_what_it_is_of(bundles, tmp_path):
    first, second, _ = bundles
    record = path_files.save_path(first, "a", tmp_path / "a.safetensors")
    read, content = path_files.read_path(tmp_path / "a.safetensors")
    own = {k.removeprefix("paths.a."): v for k, v in tensors(first).items() if k.startswith("paths.a.")}
    assert same(content, own)
    assert any("aligners" in key for key in content)
    assert read == record
    assert (read.teacher, read.dims, read.aligner, read.levels) == ("a", [24, 24], None, [0, 1])
    assert (read.width, read.depth, read.ratio, read.stem) == (32, 2, 4, "vit_tiny_patch16_384")
    without = path_files.save_path(second, "a", tmp_path / "without.safetensors")
    assert without.aligner is False
    assert without.fingerprint == record.fingerprint
    assert path_files.list_paths(tmp_path / "a.safetensors") == [record]
    assert [found.teacher for found in path_files.list_paths(first)] == ["a", "b"]


def test_swapped_there_and_back(bundles, tmp_path):
    first, second, _ = bundles
    for name, place in (("one", first), ("two", second)):
        path_files.save_path(place, "a", tmp_path / f"{name}.safetensors")
    swapped = path_files.swap_path(second, tmp_path / "one.safetensors", tmp_path / "swapped")
    assert swapped.aligners == {"a": None, "b": False}
    now, was, other = tensors(tmp_path / "swapped"), tensors(second), tensors(first)
    for key, value in now.items():
        assert torch.equal(value, (other if key.startswith("paths.a.") else was)[key]), key
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = load_bundle(tmp_path / "swapped")(image).paths["a"], load_bundle(first)(image).paths["a"]
    assert all(torch.equal(one, two) for one, two in zip(ours, theirs, strict=True))
    path_files.swap_path(tmp_path / "swapped", tmp_path / "two.safetensors", tmp_path / "back")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "back" / file).read_bytes() == (second / file).read_bytes()


def test_a_path_of_another_stem_is_refused(bundles, tmp_path):
    first, _, foreign = bundles
    path_files.save_path(foreign, "a", tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"the path of a has grown on another stem \(.*than this student's"):
        path_files.swap_path(first, tmp_path / "a.safetensors", tmp_path / "swapped")
    assert not (tmp_path / "swapped").exists()


def test_the_fingerprint_is_of_every_weight_but_the_grid_of_positions():
    one = student(1)
    before = path_files.fingerprint(one)
    one.set_image_size((32, 64))
    assert path_files.fingerprint(one) == before
    for name, weight in one.stem.named_parameters():
        kept = weight.detach().clone()
        weight.data.view(-1)[0] += 1
        assert (path_files.fingerprint(one) != before) == (name != "vit.pos_embed"), name
        weight.data.copy_(kept)


def test_what_does_not_fit(bundles, tmp_path):
    first, *_ = bundles
    record = path_files.save_path(first, "a", tmp_path / "a.safetensors")
    content = safetensors.torch.load_file(tmp_path / "a.safetensors")

    def write(metadata, tensors=content):
        safetensors.torch.save_file(tensors, tmp_path / "x.safetensors", metadata)

    def said(**changes):
        write({path_files.KEY: json.dumps({**vars(record), **changes})})
        with pytest.raises(UserError) as error:
            path_files.swap_path(first, tmp_path / "x.safetensors", tmp_path / "swapped")
        return str(error.value)

    assert "the path has width 64, but this student 32" in said(width=64)
    assert "the path has levels [0], but this student [0, 1]" in said(levels=[0])
    assert "the path has ratio 2, but this student 4" in said(ratio=2)
    assert "the path has norm False, but this student True" in said(norm=False)
    assert "has the widths [8, 8], but that of a in" in said(dims=[8, 8])
    assert "no adapter path of a teacher 'c'; it has those of: a, b" in said(teacher="c")
    write({})
    with pytest.raises(UserError, match="it has no record of a path"):
        path_files.read_path(tmp_path / "x.safetensors")
    write({path_files.KEY: json.dumps(vars(record))}, dict(list(content.items())[1:]))
    with pytest.raises(UserError, match="is corrupt: Missing key"):
        path_files.swap_path(first, tmp_path / "x.safetensors", tmp_path / "swapped")
    (tmp_path / "x.safetensors").write_bytes(b"none")
    with pytest.raises(UserError, match="cannot be read as a path"):
        path_files.list_paths(tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="exists already"):
        path_files.save_path(first, "a", tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="there is no student at"):
        path_files.list_paths(tmp_path / "nowhere")


def test_of_a_run_the_teacher_is_told_too(bundles, tmp_path):
    weights = tmp_path / "teacher.pt"
    weights.write_bytes(b"weights")
    bundles[0].joinpath("config.yaml").write_text(f"teachers: {{a: {{family: dinov2, weights: {weights}}}}}")
    record, other = path_files.list_paths(bundles[0])
    assert record.spec == {"family": "dinov2", "weights": str(weights)}
    assert record.weights_sha256 == hashlib.sha256(b"weights").hexdigest()
    assert (other.spec, other.weights_sha256) == (None, None)


def test_the_tool(bundles, tmp_path, capsys, monkeypatch):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["paths.py", *map(str, arguments)])
        try:
            runpy.run_path(str(TOOL), run_name="__main__")
        except SystemExit as end:
            return end.code, capsys.readouterr()
        return 0, capsys.readouterr()

    first, second, foreign = bundles
    assert call("save", first, "a", tmp_path / "a.safetensors")[0] == 0
    code, said = call("list", tmp_path / "a.safetensors")
    assert code == 0
    assert " ".join(said.out.splitlines()[2].split()).startswith("a 24 24 where widths differ 4")
    code, said = call("swap", second, tmp_path / "a.safetensors", tmp_path / "swapped")
    assert (code, said.out) == (0, f"{tmp_path / 'swapped'}: sources stem, a, b\n")
    code, said = call("swap", foreign, tmp_path / "a.safetensors", tmp_path / "refused")
    assert code == 2
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1

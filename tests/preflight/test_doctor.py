"""The doctor's command: exit codes, what it prints, and that nothing is written."""

import os
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from sak import cli
from sak.data.images import Images, find_images
from sak.errors import UserError

ROOT = Path(__file__).parents[2]
MAIN = runpy.run_path(str(ROOT / "tools/doctor.py"))["main"]


def snapshot(folder):
    return sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))


def doctor(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["doctor.py", *map(str, arguments)])
    try:
        cli.run(MAIN)
        code = 0
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


MINI = ("data.dataset=mini_context", "data.renderer.train=5000", "data.workers=0")


def test_all_is_well_before_rendering(tiny, tmp_path, monkeypatch, capsys):
    before = snapshot(tmp_path)
    code, out, _ = doctor(monkeypatch, capsys, tiny, *MINI, f"data.root={tmp_path}/mini")
    assert code == 0
    assert "the first training renders 5000 + 600 scenes" in out
    assert "stage multitask: 4 steps, 8 images" in out
    assert out.endswith("all is well\n")
    assert snapshot(tmp_path) == before


def test_everything_wrong_is_told_in_one_go(tiny, tmp_path, monkeypatch, capsys):
    weights = tmp_path / "nowhere.safetensors"
    code, out, _ = doctor(
        monkeypatch, capsys, tiny, f"teachers.dinov2.weights={weights}", f"stages.distill.images={tmp_path}/none"
    )
    assert code == 1
    assert "ImageSets/Context/train.txt lists 2 where 4,998 are expected" in out
    assert f"there is no weights file {weights}" in out
    assert f"{tmp_path}/none is not a folder" in out
    assert "parameters (millions)" in out  # the plan needs no weights


def test_unlabelled_images_are_opened_and_checked_as_training_does(tiny, archive, tmp_path, monkeypatch, capsys):
    """Of five pictures two cannot be used; one has 16 bits, and the pipe beside them is not waited for."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, array in enumerate(
        (
            rng.integers(0, 256, (30, 40, 3), np.uint8),
            rng.integers(0, 65536, (20, 50), np.uint16),
            rng.integers(0, 4096, (20, 50), np.uint16),  # of 12 bits, or very dark
            rng.integers(0, 256, (30, 40), np.uint8),
        )
    ):
        Image.fromarray(array).save(folder / f"{number}.png")
    (folder / "4.png").write_bytes((folder / "0.png").read_bytes()[:500])
    (folder / "notes.txt").touch()
    os.mkfifo(folder / "pipe.png")
    before = snapshot(tmp_path)
    code, out, _ = doctor(monkeypatch, capsys, tiny, f"data.root={archive}", f"stages.distill.images={folder}")
    assert code == 1
    assert f"5 unlabelled images in {folder}; left out: 1 .txt, 1 pipes or devices" in out
    assert "3 read (1 I;16, 1 L, 1 RGB), 20..30 x 40..50 pixels" in out
    assert f"images whose black and white cannot be told (distill): 1\n    {folder}/2.png has 16 bits" in out
    assert f"files that cannot be read (distill): 1\n    {folder}/4.png is corrupt" in out
    assert snapshot(tmp_path) == before

    dataset = Images(find_images(folder), (16, 16))
    for index, file in enumerate(dataset.image_files):  # what the doctor says of a file is what training would say
        if file.name in ("2.png", "4.png"):
            with pytest.raises(UserError) as error:
                dataset[index]
            assert str(error.value) in out
        else:
            dataset[index]
            assert str(file) not in out


def test_a_sample_of_unlabelled_images(tiny, archive, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(9):
        Image.new("RGB", (20, 20)).save(folder / f"{number}.png")
    overrides = f"data.root={archive}", f"stages.distill.images={folder}"
    out = doctor(monkeypatch, capsys, tiny, *overrides, "--quick", "3")[1]
    assert "9 unlabelled images in" in out
    assert "3 read (3 RGB), 20..20 x 20..20 pixels" in out


def test_weights_that_do_not_fit(tiny, tmp_path, monkeypatch, capsys):
    corrupt = tmp_path / "corrupt.safetensors"
    corrupt.write_bytes(b"no weights")
    code, out, _ = doctor(monkeypatch, capsys, tiny, f"teachers.dinov2.weights={corrupt}")
    assert code == 1
    assert f"{corrupt} cannot be read as weights" in out


@pytest.mark.slow
def test_weights_that_are_no_numbers(tmp_path, monkeypatch, capsys):
    """The doctor builds its models without memory, but reads the files."""
    state = load_file(ROOT / "teachers/mini/dinov2.safetensors")
    state["blocks.2.norm1.weight"][1] = float("nan")
    save_file(state, tmp_path / "diverged.safetensors")
    code, out, _ = doctor(
        monkeypatch, capsys, ROOT / "configs/sak_pascal_mini.yaml", *MINI, f"data.root={tmp_path}/mini",
        f"teachers.dinov2.weights={tmp_path}/diverged.safetensors",
    )  # fmt: skip
    assert code == 1
    assert "diverged.safetensors holds infinite values or NaN in blocks.2.norm1.weight" in out


@pytest.mark.parametrize("argument", ["data.rot=x", "data.dataset=imagenet"])
def test_a_config_that_cannot_be_read(tiny, monkeypatch, capsys, argument):
    code, _, err = doctor(monkeypatch, capsys, tiny, argument)
    assert code == 2
    assert err.startswith("error: ")
    assert "Traceback" not in err

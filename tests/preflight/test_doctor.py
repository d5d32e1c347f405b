"""The doctor's command: exit codes, what it prints, and that nothing is written."""

import runpy
from pathlib import Path

import pytest

from sak import cli

MAIN = runpy.run_path(str(Path(__file__).parents[2] / "tools/doctor.py"))["main"]


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
    assert "the first training renders 5000 + 300 scenes" in out
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


def test_weights_that_do_not_fit(tiny, tmp_path, monkeypatch, capsys):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"no weights")
    code, out, _ = doctor(monkeypatch, capsys, tiny, f"teachers.dinov2.weights={damaged}")
    assert code == 1
    assert f"{damaged} cannot be read as weights" in out


@pytest.mark.parametrize("argument", ["data.rot=x", "data.dataset=imagenet"])
def test_a_config_that_cannot_be_read(tiny, monkeypatch, capsys, argument):
    code, _, err = doctor(monkeypatch, capsys, tiny, argument)
    assert code == 2
    assert err.startswith("error: ")
    assert "Traceback" not in err

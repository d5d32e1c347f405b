"""``tools/predict.py``: what lies in its folder, what happens to bad pictures, and how it goes on."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

import sak
from sak.deploy.pictures import find_shots, read_shots
from sak.errors import UserError
from sak.tasks.description import voc_palette

RNG = np.random.default_rng(0)
TASKS = {"semseg", "human_parts", "saliency", "normals", "edge"}


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for name, size in (("a.jpg", (96, 96)), ("b.png", (30, 50)), ("deep/c.bmp", (100, 120))):
        Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    return folder


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_folder_of_predictions(trained, photos, tmp_path, call_tool):
    out = tmp_path / "out"
    code, printed, _ = call_tool("predict", trained, photos, "--out", out, "--npz")
    assert (code, printed.strip()) == (0, f"3 predicted, in {out}")
    names = ("a", "b", "deep/c")
    kinds = TASKS | {"panels"}
    expected = {f"{kind}/{name}.png" for kind in kinds for name in names} | {f"arrays/{name}.npz" for name in names}
    assert files(out) == expected | {"predictions.json"}
    prediction = sak.Predictor(trained)(photos / "deep/c.bmp")
    labels = Image.open(out / "semseg/deep/c.png")
    assert labels.mode == "P"
    assert np.array_equal(np.asarray(labels), prediction["semseg"])
    assert labels.getpalette()[: 21 * 3] == voc_palette(21).flatten().tolist()
    edges = np.asarray(Image.open(out / "edge/deep/c.png"))
    assert np.abs(edges.astype(float) - 255 * prediction["edge"]).max() <= 1.01
    normals = np.asarray(Image.open(out / "normals/deep/c.png")) / 127.5 - 1
    assert np.abs(normals - prediction["normals"]).max() < 0.005
    with np.load(out / "arrays/deep/c.npz") as arrays:
        assert set(arrays) == TASKS
        np.testing.assert_allclose(arrays["saliency"], prediction["saliency"], atol=1e-5)


def test_a_bad_picture_is_listed_at_the_end_and_all_others_are_done(trained, photos, tmp_path, call_tool, capsys):
    (photos / "broken.jpg").write_text("no picture")
    (photos / "cut.png").write_bytes((photos / "b.png").read_bytes()[:100])
    Image.new("1", (20000, 20000)).save(photos / "huge.png")
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        told = []
        patch.setattr("sys.stderr.write", lambda text: told.append(text))
        code, printed, errors = call_tool("predict", trained, photos, "--out", out, "--tasks", "edge", "--no-panels")
    said = "".join(told)
    assert (code, printed.strip(), errors) == (1, f"3 predicted, in {out}", [])
    assert "3 could not be read:" in said
    listed = [line for line in said.splitlines() if line.startswith("  ")]
    assert [name in line for name, line in zip(("broken.jpg", "cut.png", "huge.png"), sorted(listed), strict=True)]
    assert "has more pixels" in said
    assert files(out) == {f"edge/{name}.png" for name in ("a", "b", "deep/c")} | {"predictions.json"}


def test_it_goes_on_where_it_stopped(trained, photos, tmp_path, call_tool, monkeypatch):
    out = tmp_path / "out"
    command = ("predict", trained, photos, "--out", out, "--tasks", "edge", "saliency", "--no-panels")
    call_tool(*command)
    (out / "saliency/b.png").unlink()
    (out / "edge/.a.png.1.partial").write_text("of a killed start")
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    Image.new("RGB", (9, 9)).save(photos / "a.jpg")  # another picture by now
    code, printed, _ = call_tool(*command)
    assert (code, printed.strip()) == (0, f"2 predicted, in {out}")
    again = {str(path.relative_to(out)) for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert again == {"edge/a.png", "edge/b.png", "saliency/a.png"}
    assert Image.open(out / "edge/a.png").size == (9, 9)
    assert not list(out.rglob(".*partial"))
    assert call_tool(*command)[1].strip() == f"0 predicted, in {out}"


def test_predictions_of_two_kinds_do_not_mix(trained, photos, tmp_path, call_tool):
    out = tmp_path / "out"
    call_tool("predict", trained, photos / "b.png", "--out", out, "--no-panels")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for options in (("--without", "stem"), ("--longest-edge", 20), ("--whole",), ("--precision", "bf16")):
        code, _, errors = call_tool("predict", trained, photos, "--out", out, *options)
        assert code == 2
        assert f"holds predictions that were made with another {options[0][2:].replace('-', '_')}" in errors[0]
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert json.loads((out / "predictions.json").read_text())["without"] == []


def test_videos_give_their_frames(trained, tmp_path, call_tool):
    frames = [np.full((64, 80, 3), 40 * number, np.uint8) for number in range(6)]
    video = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (80, 64))
    for frame in frames:
        video.write(frame)
    video.release()
    shots, _ = find_shots([str(tmp_path / "film.avi")], every=2)
    assert [shot.name for shot in shots] == ["film/000000", "film/000002", "film/000004"]
    read = [pixels for _, pixels in read_shots(shots[1:])]
    assert [pixels.shape for pixels in read] == [(64, 80, 3)] * 2
    assert [round(pixels.mean() / 40) for pixels in read] == [2, 4]
    out = tmp_path / "out"
    code, _, _ = call_tool("predict", trained, tmp_path / "film.avi", "--out", out, "--every", "3", "--no-panels")
    assert code == 0
    assert files(out) >= {"edge/film/000000.png", "edge/film/000003.png"}
    (tmp_path / "no.mp4").write_text("no film")
    with pytest.raises(UserError, match=r"no.mp4 cannot be read as a video"):
        find_shots([str(tmp_path / "no.mp4")])

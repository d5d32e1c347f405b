"""The archive on disk: its format, its determinism, and that a killed rendering is never taken for a finished one."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from sak.data.mini import archive, ensure
from sak.data.mini.classes import CONTEXT_ID, VOC
from sak.data.pascal_part import PART_LABELS, PERSON
from sak.errors import UserError
from sak.locks import one_at_a_time

SMALL = {"train": 3, "val": 1, "size": 32, "seed": 3, "progress": False}


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return ensure(tmp_path_factory.mktemp("mini") / "mini_context", workers=1, **SMALL)


def test_number_of_processes_does_not_change_a_byte(root, tmp_path):
    assert content(ensure(tmp_path / "again", workers=2, **SMALL)) == content(root)


def test_another_seed_changes_the_pictures(root, tmp_path):
    other = ensure(tmp_path / "other", workers=1, **{**SMALL, "train": 1, "seed": 4})
    picture = Path("JPEGImages/2008_000001.jpg")
    assert (other / picture).read_bytes() != (root / picture).read_bytes()


def test_layout_of_the_release(root):
    ids = {split: (root / f"ImageSets/Context/{split}.txt").read_text().split() for split in ("train", "val")}
    assert ids == {"train": ["2008_000001", "2008_000002", "2008_000003"], "val": ["2010_000001"]}
    names = set(ids["train"] + ids["val"])
    for folder in ("JPEGImages", "human_parts", "pascal-context/trainval", "sal_distill", "normals_distill"):
        assert {path.stem for path in (root / folder).iterdir()} == names
    voc, context = ({path.stem for path in (root / "semseg" / f).iterdir()} for f in ("VOC12", "pascal-context"))
    assert voc | context == names
    assert voc
    assert context
    assert not voc & context
    assert json.loads((root / "captions.json").read_text()).keys() == names
    assert json.loads((root / "json/context_classes.json").read_text()) == CONTEXT_ID
    assert set(json.loads((root / "json/nyu_classes.json").read_text())) <= set(CONTEXT_ID)


def test_labels_on_disk(root):
    for path in (root / "JPEGImages").iterdir():
        name = path.stem
        folder = "VOC12" if (root / f"semseg/VOC12/{name}.png").exists() else "pascal-context"
        semseg = np.asarray(Image.open(root / f"semseg/{folder}/{name}.png"))
        assert semseg.shape == (32, 32)
        assert semseg.max() < len(VOC)
        assert set(np.unique(np.asarray(Image.open(root / f"sal_distill/{name}.png")))) <= {0, 255}
        label_map = scipy.io.loadmat(root / f"pascal-context/trainval/{name}.mat")["LabelMap"]
        assert label_map.dtype == np.uint16
        assert np.isin(label_map, list(CONTEXT_ID.values())).all()
        normals = np.asarray(Image.open(root / f"normals_distill/{name}.png")) / 127.5 - 1
        length = np.linalg.norm(normals, axis=-1)[label_map != CONTEXT_ID["sky"]]
        np.testing.assert_allclose(length, 1, atol=0.01)


def test_part_annotation_on_disk(root):
    for path in (root / "human_parts").iterdir():
        folder = "VOC12" if (root / f"semseg/VOC12/{path.stem}.png").exists() else "pascal-context"
        semseg = np.asarray(Image.open(root / f"semseg/{folder}/{path.stem}.png"))
        painted = np.zeros_like(semseg)
        for item in scipy.io.loadmat(path)["anno"][0, 0]["objects"][0]:
            mask, class_ind = item["mask"].astype(bool), int(item["class_ind"][0, 0])
            assert VOC[class_ind] == item["class"][0]
            painted[mask] = class_ind
            assert (item["parts"].size > 0) == (class_ind == PERSON)
            if class_ind == PERSON:
                parts = item["parts"][0]
                assert all(part["part_name"][0] in PART_LABELS for part in parts)
                np.testing.assert_array_equal(sum(part["mask"] for part in parts), mask)  # disjoint, and nothing left
        np.testing.assert_array_equal(painted, semseg)


def test_some_people_have_parts(tmp_path):
    names = set()
    for index in range(8):
        scene, rendering, _ = archive.draw(0, "train", index, 32)
        for item in archive.part_annotation("x", scene, rendering)[0, 0]["objects"].ravel():
            names |= {part["part_name"] for part in item["parts"].ravel()} if item["class"] == "person" else set()
    assert {"head", "torso", "luarm", "rlleg"} <= names


def test_a_finished_archive_is_returned_as_it_is(root, monkeypatch):
    monkeypatch.setattr(archive, "write_job", lambda job: pytest.fail("rendered again"))
    assert ensure(root, workers=1, **SMALL) == root


@pytest.mark.parametrize(("key", "value"), [("train", 2), ("val", 2), ("size", 64), ("seed", 9)])
def test_other_settings_are_refused_by_name(root, key, value):
    with pytest.raises(UserError, match=f"{key}={value}"):
        ensure(root, workers=1, **{**SMALL, key: value})


def test_a_killed_rendering_is_rendered_again(root, tmp_path, monkeypatch):
    target = tmp_path / "mini_context"
    write, calls = archive.write_job, []

    def killed(job):
        calls.append(job)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(job)

    monkeypatch.setattr(archive, "write_job", killed)
    with pytest.raises(KeyboardInterrupt):
        ensure(target, workers=1, **SMALL)
    assert not target.exists()
    partial = tmp_path / "mini_context.partial"
    assert partial.exists()
    (partial / "JPEGImages" / "2008_000009.jpg").write_bytes(b"half a picture")
    monkeypatch.undo()
    assert content(ensure(target, workers=1, **SMALL)) == content(root)
    assert not partial.exists()


@pytest.mark.parametrize("place", ["mini_context", "mini_context.partial"])
def test_files_of_others_are_never_touched(tmp_path, place):
    (tmp_path / place).mkdir()
    mine = tmp_path / place / "thesis.txt"
    mine.write_text("years of work")
    with pytest.raises(UserError, match=place):
        ensure(tmp_path / "mini_context", workers=1, **SMALL)
    assert mine.read_text() == "years of work"


@pytest.mark.parametrize("text", ["{}", "[]", "3", "", "{", '{"settings": 3}', '{"settings": null}', "\xff"])
def test_a_manifest_that_is_none_is_named(tmp_path, text):
    (tmp_path / "mini_context").mkdir()
    manifest = tmp_path / "mini_context" / "mini_context.json"
    manifest.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=f"{manifest} is no manifest of mini_context"):
        ensure(tmp_path / "mini_context", workers=1, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mini_context"]
    assert manifest.read_text(encoding="latin-1") == text


RENDER = """
import sys
from sak.data.mini import archive, ensure

write = archive.write_job
archive.write_job = lambda job: print("renders", flush=True) or write(job)
ensure(sys.argv[1], train=3, val=1, size=32, seed=3, workers=1, progress=False)
"""


def test_of_two_processes_one_renders_and_the_other_waits(root, tmp_path):
    place = tmp_path / "mini_context"
    with one_at_a_time(place, ""):  # both find it taken
        both = [
            subprocess.Popen([sys.executable, "-c", RENDER, place], stdout=subprocess.PIPE, text=True) for _ in range(2)
        ]
        said = [process.stdout.readline() for process in both]
        assert not place.exists()
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert said == [f"another process renders into {place}: waiting for it\n"] * 2
    assert sorted(outputs) == ["", "renders\n" * 4]
    assert [process.returncode for process in both] == [0, 0]
    assert content(place) == content(root)
    assert [path.name for path in tmp_path.iterdir()] == ["mini_context"]


def test_a_killed_process_holds_no_lock(tmp_path):
    place = tmp_path / "mini_context"
    code = "import sys, time; from pathlib import Path; from sak.locks import one_at_a_time\n"
    code += "with one_at_a_time(Path(sys.argv[1]), ''): print('held', flush=True); time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", code, place], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    ensure(place, workers=1, **{**SMALL, "train": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["mini_context"]


def test_a_file_system_without_locks_is_no_obstacle(root, tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    assert content(ensure(tmp_path / "mini_context", workers=1, **SMALL)) == content(root)
    assert [path.name for path in tmp_path.iterdir()] == ["mini_context"]


@pytest.mark.parametrize(("mask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o007, 0o660, 0o770)])
def test_others_can_read_it_as_the_umask_says(tmp_path, mask, file_mode, folder_mode):
    before = os.umask(mask)
    try:
        place = ensure(tmp_path / "mini_context", workers=1, **{**SMALL, "train": 1})
    finally:
        os.umask(before)
    for path in (place, *place.rglob("*")):
        assert path.stat().st_mode & 0o777 == (folder_mode if path.is_dir() else file_mode), path


def test_an_empty_directory_is_filled(tmp_path):
    (tmp_path / "here").mkdir()
    assert (ensure(tmp_path / "here", workers=1, **{**SMALL, "train": 1}) / "mini_context.json").is_file()


def test_sizes_must_make_sense(tmp_path):
    with pytest.raises(UserError, match="train >= 1"):
        ensure(tmp_path / "none", train=0)

"""The archive on disk: its format, its determinism, and that a killed rendering is never taken for a finished one."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.ndimage
from PIL import Image, JpegImagePlugin

from sak.data.images import find_images
from sak.data.mini import archive, ensure
from sak.data.mini.annotation import part_annotation
from sak.data.mini.classes import CONTEXT_ID, VOC
from sak.data.mini.dice import Dice
from sak.data.mini.drawing import draw
from sak.data.mini.places.compose import random_scene
from sak.data.pascal_context import PascalContext
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
        assert set(np.unique(semseg)) <= {*range(len(VOC)), 255}
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
        np.testing.assert_array_equal(painted[semseg < 255], semseg[semseg < 255])


def test_some_people_have_parts(tmp_path):
    names = set()
    for index in range(8):
        scene, rendering, _ = draw(0, "train", index, 32)
        for item in part_annotation("x", scene, rendering)[0, 0]["objects"].ravel():
            names |= {part["part_name"] for part in item["parts"].ravel()} if item["class"] == "person" else set()
    assert {"head", "torso", "luarm", "rlleg"} <= names


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """Images (H, W) in grey and their label maps, as the class that reads the release reads them."""
    settings = {**SMALL, "train": 4, "size": 64}
    scenes = PascalContext(
        ensure(tmp_path_factory.mktemp("mini") / "larger", workers=1, **settings), image_size=(64, 64)
    )
    maps = [scenes.read_boundaries(paths[0]).astype(int) for paths in scenes._files["edge"]]
    return [(scenes[i]["image"].mean(0).double().numpy(), maps[i]) for i in range(len(scenes))]


def offset(pairs, axis: int) -> float:
    """By how many pixels images lie off their label maps: where the correlation of steps in both has its top."""
    scores = []
    for shift in (-0.5, 0.0, 0.5):
        correlations = []
        for image, labels in pairs:
            steps = np.abs(np.diff(moved(image, axis, shift), axis=axis))[2:-2, 2:-2]
            changes = (np.diff(labels, axis=axis) != 0)[2:-2, 2:-2]
            correlations.append(np.corrcoef(steps.ravel(), changes.ravel())[0, 1])
        scores.append(np.mean(correlations))
    left, middle, right = scores
    return 0.25 * (left - right) / (2 * middle - left - right)  # of the parabola through them


def moved(image: np.ndarray, axis: int, shift: float) -> np.ndarray:
    return scipy.ndimage.shift(image, [shift * (axis == 0), shift * (axis == 1)], order=1, mode="nearest")


@pytest.mark.parametrize("axis", [0, 1])
def test_pictures_and_labels_are_registered(larger, axis):
    assert abs(offset(larger, axis)) < 0.1
    for shift in (-0.5, 0.5):  # what the assertion above can see
        shifted = [(moved(image, axis, shift), labels) for image, labels in larger]
        assert abs(offset(shifted, axis)) > 0.3


def test_pictures_keep_the_resolution_of_their_colours(root):
    for path in (root / "JPEGImages").iterdir():
        with Image.open(path) as image:
            assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4


PAIRED = {**SMALL, "train": 1, "unlabelled": 5, "positives": True}


@pytest.fixture(scope="module")
def paired(tmp_path_factory):
    return ensure(tmp_path_factory.mktemp("mini") / "paired", workers=1, **PAIRED)


def test_unlabelled_scenes_are_stored_as_the_distillation_reads_them(paired):
    entries = json.loads((paired / "unlabelled/scenes.json").read_text())
    for tar in ("images", "images_again"):
        files = find_images(paired / f"unlabelled/{tar}.tar", keep=False)
        assert [file.stem for file in files] == list(entries) == [f"2012_{i:06d}" for i in range(1, 6)]
    first = entries["2012_000001"]
    _, rendering, sentence = draw(SMALL["seed"], "unlabelled", 0, SMALL["size"])
    assert first["caption"] == sentence
    shown = set(np.unique(rendering.context).tolist())
    assert {name for name in first["classes"] if name} == shown
    with tarfile.open(paired / "unlabelled/regions.tar") as tar:
        numbers = np.asarray(Image.open(tar.extractfile("2012_000001.png")))
    np.testing.assert_array_equal(np.asarray(first["classes"])[numbers], rendering.context)


def test_number_of_processes_does_not_change_unlabelled_scenes(paired, tmp_path):
    assert content(ensure(tmp_path / "again", workers=2, **PAIRED)) == content(paired)


def test_unlabelled_scenes_that_nobody_asks_for_are_no_obstacle(paired):
    before = content(paired)
    for fewer in ({"unlabelled": 0, "positives": False}, {"positives": False}):
        assert ensure(paired, workers=1, **{**PAIRED, **fewer}) == paired
    with pytest.raises(UserError, match="unlabelled=4 is asked for"):  # whose tar has others too
        ensure(paired, workers=1, **{**PAIRED, "unlabelled": 4})
    assert content(paired) == before


def test_positives_need_scenes(tmp_path):
    with pytest.raises(UserError, match="unlabelled above 0"):
        ensure(tmp_path / "none", positives=True)


def age(root: Path, version: int = 1) -> None:
    """Make a finished archive one of an older format, as it would have been rendered then."""
    manifest = json.loads((root / archive.MANIFEST).read_text())
    manifest["settings"] = {k: v for k, v in manifest["settings"].items() if k not in ("unlabelled", "positives")}
    manifest["settings"]["format"] = version
    (root / archive.MANIFEST).write_text(json.dumps(manifest))


def test_an_older_format_is_rendered_anew(root, tmp_path):
    old = shutil.copytree(root, tmp_path / "mini_context")  # keeps the files' times
    (old / "captions.json").write_text("{}")
    age(old)
    assert content(ensure(old, workers=1, **SMALL)) == content(root)
    assert [path.name for path in tmp_path.iterdir()] == ["mini_context"]


def test_what_a_killed_change_of_formats_left_is_cleared_away(root, tmp_path, monkeypatch):
    old = shutil.copytree(root, tmp_path / "mini_context")
    age(old)

    def killed(place, **how):
        if place.is_dir():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            ensure(old, workers=1, **SMALL)
    assert not old.exists()
    assert content(ensure(old, workers=1, **SMALL)) == content(root)
    assert [path.name for path in tmp_path.iterdir()] == ["mini_context"]


def changed(root):
    (root / "captions.json").write_text("{}")


def added(root):
    (root / "JPEGImages" / "mine.jpg").write_bytes(b"a picture of mine")


def removed(root):
    next((root / "sal_distill").iterdir()).unlink()


def linked(root):
    (root / "more").symlink_to(root.parent)


@pytest.mark.parametrize("change", [changed, added, removed, linked])
def test_an_older_format_that_someone_touched_is_left_alone(root, tmp_path, change):
    old = shutil.copytree(root, tmp_path / "mini_context")
    age(old)
    later = (old / archive.MANIFEST).stat().st_mtime + 1
    change(old)
    os.utime(old / "captions.json", (later, later)) if change is changed else None
    before = content(old)
    with pytest.raises(UserError, match="older format 1"):
        ensure(old, workers=1, **SMALL)
    assert content(old) == before


@pytest.mark.slow
def test_every_class_is_the_main_object_often_enough():
    mains = Counter(random_scene(Dice((2, i), (2, i, 0)), 32).things[0].voc for i in range(600))
    assert mains.keys() == set(VOC[1:])
    assert min(mains.values()) >= 600 / 20 / 2


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


NO_MANIFESTS = (
    "{}", "[]", "3", "", "{", '{"settings": 3}', '{"settings": null}', '{"settings": {"format": "1"}}',
    '{"settings": {"format": 2, "train": "3", "val": 1}}', "\xff",
)  # fmt: skip


@pytest.mark.parametrize("text", NO_MANIFESTS)
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

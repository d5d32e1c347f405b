"""What the survey of an archive finds: one archive corrupt in many ways at once, and each check by itself."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from sak.config.schema import DataConfig, RendererConfig
from sak.data import mini
from sak.data.pascal_context import PascalContext
from sak.preflight.summary import REMEDIES, ranges, report
from sak.preflight.survey import survey_archive

FIXTURE = Path(__file__).parents[1] / "fixtures/pascal_format/PASCALContext"
TASKS = ["semseg", "human_parts", "saliency", "normals", "edge"]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    return mini.ensure(tmp_path_factory.mktemp("mini") / "archive", 8, 4, size=48, workers=1, progress=False)


@pytest.fixture
def archive(rendered, tmp_path):
    return Path(shutil.copytree(rendered, tmp_path / "archive"))


def settings(root, **changes):
    return DataConfig(
        **{
            "dataset": "mini_context",
            "root": str(root),
            "image_size": [48, 48],
            "tasks": TASKS,
            "renderer": RendererConfig(train=8, val=4),
            **changes,
        }
    )


def problems(data, **options):
    found = survey_archive(data, progress=False, **options).problems
    assert all(problem.kind in REMEDIES for problem in found)
    return {(problem.kind, problem.subject): [p.detail for p in found if p[:2] == problem[:2]] for problem in found}


def snapshot(root):
    return sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))


def name_of(root, index, split="train"):
    return (root / f"ImageSets/Context/{split}.txt").read_text().split()[index]


def semseg_of(root, name):
    return next(root.glob(f"semseg/*/{name}.png"))


def rewrite(path, change):
    values = np.array(Image.open(path))
    Image.fromarray(change(values)).save(path)


def test_nothing_is_wrong_and_nothing_is_written(archive):
    before = snapshot(archive)
    survey = survey_archive(settings(archive), progress=False)
    assert survey.problems == []
    assert survey.counts == {"train": 8, "val": 4}
    facts = dict(survey.facts)
    assert facts["images"].startswith("12 read (12 RGB), 48..48 x 48..48 pixels")
    assert "y points up" in facts["normals"]
    assert snapshot(archive) == before


def test_the_fixtures_of_the_release_are_too_few():
    data = settings(FIXTURE, dataset="pascal_context", tasks=["semseg", "edge"])
    assert problems(data) == {
        ("count", "train"): ["ImageSets/Context/train.txt lists 2 where 4,998 are expected"],
        ("count", "val"): ["ImageSets/Context/val.txt lists 2 where 5,105 are expected"],
    }


def test_all_problems_are_found_at_once(archive):
    names = [name_of(archive, index) for index in range(8)]
    for name in names[:2]:
        (archive / f"sal_distill/{name}.png").unlink()
    (archive / f"pascal-context/trainval/{names[0]}.mat").unlink()  # of normals and of edges
    image = archive / f"JPEGImages/{names[2]}.jpg"
    image.write_bytes(image.read_bytes()[:-200])
    rewrite(semseg_of(archive, names[3]), lambda values: np.where(values == values.max(), 37, values).astype(np.uint8))
    rewrite(archive / f"sal_distill/{names[3]}.png", lambda values: values[:20])
    rewrite(archive / f"sal_distill/{names[4]}.png", lambda values: values // 255)
    parts = archive / f"human_parts/{names[5]}.mat"
    parts.write_bytes(parts.read_bytes()[:150])
    scipy.io.savemat(archive / f"human_parts/{names[6]}.mat", {"other": 1})
    label_map = archive / f"pascal-context/trainval/{names[7]}.mat"
    scipy.io.savemat(label_map, {"LabelMap": np.full((48, 48), 999, dtype=np.uint16)})

    found = problems(settings(archive))
    assert found.pop(("missing", "saliency, train")) == [f"{archive}/sal_distill/{name}.png" for name in names[:2]]
    for task in ("normals", "edge"):
        assert found.pop(("missing", f"{task}, train")) == [f"{archive}/pascal-context/trainval/{names[0]}.mat"]
    for key, path in {
        ("corrupt", "image"): image,
        ("corrupt", "human_parts"): parts,
        ("content", "human_parts"): archive / f"human_parts/{names[6]}.mat",
        ("range", "semseg"): semseg_of(archive, names[3]),
        ("size", "saliency"): archive / f"sal_distill/{names[3]}.png",
        ("saliency", "saliency"): archive / f"sal_distill/{names[4]}.png",
        ("label map", "edge"): label_map,
        ("label map", "normals"): label_map,  # which are valid on some of its classes
    }.items():
        (detail,) = found.pop(key)
        assert str(path) in detail
    assert found == {}


@pytest.mark.parametrize("encoding", [lambda v: v // 255, lambda v: v.astype(np.uint16) * 257, lambda v: v > 0])
def test_saliency_in_one_encoding_is_well_and_a_map_in_another_is_named(archive, encoding):
    files = sorted((archive / "sal_distill").glob("*.png"))
    salient = [path for path in files if np.array(Image.open(path)).any()]
    for path in files:
        rewrite(path, encoding)
    data = settings(archive, tasks=["saliency"])
    assert problems(data) == {}
    rewrite(salient[0], lambda values: np.where(values > 0, 200, 0).astype(np.uint8))
    ((detail,),) = problems(data).values()
    assert detail.startswith(f"{salient[0]} is stored as 0..255, most maps as ")


def test_the_share_of_salient_pixels_is_that_of_any_encoding(archive):
    data = settings(archive, tasks=["saliency"])
    before = dict(survey_archive(data, progress=False).facts)["saliency"]
    for path in (archive / "sal_distill").glob("*.png"):
        rewrite(path, lambda values: values // 255)
    assert dict(survey_archive(data, progress=False).facts)["saliency"] == before


def test_out_of_range_names_file_and_value(archive):
    path = semseg_of(archive, name_of(archive, 0, "val"))
    rewrite(path, lambda values: np.full_like(values, 99))
    ((detail,),) = problems(settings(archive)).values()
    assert f"{path} holds the value 99" in detail


def test_lists(archive):
    lists = {split: archive / f"ImageSets/Context/{split}.txt" for split in ("train", "val")}
    train = lists["train"].read_text().split()
    lists["train"].write_text("\n".join([*train, train[3]]))
    lists["val"].write_text("\n".join([*lists["val"].read_text().split()[1:], train[5]]))
    assert problems(settings(archive)) == {
        ("repeated", "train"): [train[3]],
        ("count", "train"): ["ImageSets/Context/train.txt lists 9 where 8 are expected"],
        ("overlap", "train and val"): [train[5]],
    }
    lists["val"].unlink()
    assert ("archive", "val") in problems(settings(archive))


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda colours: colours // 2, "normals", "not of unit length"),
        (lambda colours: colours[..., ::-1], "facing", "z is positive on"),  # OpenCV's order of channels
    ],
)
def test_encodings_of_normals(archive, change, kind, words):
    for path in (archive / "normals_distill").glob("*.png"):
        rewrite(path, lambda values: np.ascontiguousarray(change(values)))
    details = problems(settings(archive, tasks=["normals"]))[kind, "normals"]
    assert all(words in detail for detail in details)


def test_one_map_of_normals_that_faces_away(archive):
    for path in (archive / "normals_distill").glob("*.png"):  # all look straight at a wall
        rewrite(path, lambda values: np.broadcast_to(np.uint8([128, 128, 255]), values.shape).copy())
    dataset = PascalContext(archive, "train", ["normals"], image_size=(48, 48))
    chosen = next(sample["name"] for sample in dataset if (sample["normals"] != 255).any())
    assert problems(settings(archive, tasks=["normals"])) == {}
    rewrite(archive / f"normals_distill/{chosen}.png", lambda values: 255 - values)
    ((detail,),) = problems(settings(archive, tasks=["normals"])).values()
    assert f"normals_distill/{chosen}.png: z is positive on 0%" in detail


def test_sample_reads_only_so_many(archive):
    facts = dict(survey_archive(settings(archive), sample=5, progress=False).facts)
    assert facts["sample"].startswith("5 of 12 images")
    assert facts["images"].startswith("5 read")


def test_processes_find_the_same(archive):
    (archive / f"sal_distill/{name_of(archive, 1)}.png").write_bytes(b"no image")
    one, two = (survey_archive(settings(archive), workers=workers, progress=False) for workers in (0, 2))
    assert one == two
    assert len(one.problems) == 1


def test_mini_context_that_is_not_rendered_yet(tmp_path):
    survey = survey_archive(settings(tmp_path / "nowhere"), progress=False)
    assert survey.problems == []
    assert "renders 8 + 4 scenes" in dict(survey.facts)["mini_context"]
    assert list(tmp_path.iterdir()) == []


def test_mini_context_with_other_settings(archive):
    found = problems(settings(archive, renderer=RendererConfig(train=8, val=4, seed=1)))
    assert "seed=0" in found["rendering", "mini_context"][0]


@pytest.fixture
def rooms(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("images", "gt_sets", "edge", "depth"):
        (tmp_path / folder).mkdir()
    for split, name in (("train", "1"), ("val", "2")):
        (tmp_path / f"gt_sets/{split}.txt").write_text(name)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / f"images/{name}.png")
        Image.fromarray(255 * (rng.random((20, 30)) < 0.1).astype(np.uint8)).save(tmp_path / f"edge/{name}.png")
        np.save(tmp_path / f"depth/{name}.npy", rng.uniform(1, 5, (20, 30)).astype(np.float32))
    return tmp_path


def room_problems(rooms):
    found = problems(settings(rooms, dataset="nyud", tasks=["edge", "depth"]))
    assert found.pop(("count", "train"))
    assert found.pop(("count", "val"))
    return found


@pytest.mark.parametrize(
    ("factor", "unit"), [(1, None), (100, "centimetres"), (1000, "millimetres"), (1e-3, "no unit")]
)
def test_units_of_depth(rooms, factor, unit):
    for path in (rooms / "depth").glob("*.npy"):
        np.save(path, np.load(path) * factor)
    found = room_problems(rooms)
    if unit is None:
        assert found == {}
    else:
        ((detail,),) = found.values()
        assert f"these look like {unit}" in detail


def test_depth_that_is_no_number(rooms):
    depth = np.load(rooms / "depth/1.npy")
    depth[3, 4], depth[5, 6] = np.nan, -1
    np.save(rooms / "depth/1.npy", depth)
    ((detail,),) = room_problems(rooms).values()
    assert f"{rooms}/depth/1.npy holds" in detail
    assert "2 pixels" in detail


def test_edges_that_are_not_binary(rooms):
    rewrite(rooms / "edge/2.png", lambda values: np.where(values == 255, 128, 0).astype(np.uint8))
    ((detail,),) = room_problems(rooms).values()
    assert f"{rooms}/edge/2.png holds the value 128" in detail


def test_report_groups_and_counts(archive):
    names = [name_of(archive, index) for index in range(6)]
    for name in names:
        (archive / f"sal_distill/{name}.png").unlink()
    text = report(survey_archive(settings(archive), progress=False).problems)
    assert text.splitlines() == [
        "missing files (saliency, train): 6",
        *(f"    {archive}/sal_distill/{name}.png" for name in names[:3]),
        "    ... and 3 more",
        "  -> extract the archive again, or leave the task out of data.tasks",
    ]


def test_ranges():
    assert ranges([0, 1, 2, 5, 7, 8]) == "0..2, 5, 7..8"
    assert ranges([]) == ""

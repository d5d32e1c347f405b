"""tools/evaluate.py on every kind of target, in the test's own process; two processes: test_evaluate_processes.py."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from sak import Student
from sak import tasks as task_registry
from sak.data.pascal_context import PascalContext
from sak.metrics.boundary import boundary_map
from sak.metrics.boundary import evaluate as match_boundaries
from sak.metrics.delta_m import delta_m

ROOT = Path(__file__).parents[2]
PARITY = ROOT / "tests" / "fixtures" / "parity"
ARCHIVE = ROOT / "tests" / "fixtures" / "pascal_format" / "PASCALContext"
HEADLINES = task_registry.headlines(task_registry.TASKS)
TASKS = ["semseg", "human_parts", "saliency", "normals", "edge"]


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "tiny"))


@pytest.fixture
def evaluate(call_tool):
    """Call the tool, or another one; returns (exit code, stdout, the error lines)."""
    return lambda *arguments, tool="evaluate": call_tool(tool, *arguments)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """{name: checkpoint file}: those of the parity fixtures, of stage 2, and one of stage 1."""
    folder = tmp_path_factory.mktemp("published")
    files = {}
    for name in ("pascal_a", "nyud_a"):
        tensors = safetensors.torch.load_file(PARITY / f"{name}.safetensors")
        weights = {k.removeprefix("weights/"): v for k, v in tensors.items() if k.startswith("weights/")}
        files[name] = folder / f"{name}.pth"
        torch.save({"model": weights}, files[name])
    files["stage_1"] = folder / "stage_1.pth"
    torch.save({k: v for k, v in weights.items() if not k.startswith(("heads.", "backbone.mor."))}, files["stage_1"])
    return files


PUBLISHED = ("--image-size", 64, 96, "--num-heads", 4)
PUBLISHED_NYUD = ("--image-size", 48, 80, "--num-heads", 3)


@pytest.fixture
def nyud(tmp_path):
    """A small archive in NYUD's format: three validation images of 40 x 60."""
    rng, root = np.random.default_rng(0), tmp_path / "NYUDv2"
    for folder in ("images", "gt_sets", "segmentation", "normals", "edge", "depth"):
        (root / folder).mkdir(parents=True)
    names = ["0001", "0002", "0003"]
    (root / "gt_sets/val.txt").write_text("\n".join(names))
    for name in names:
        classes = np.kron(rng.integers(0, 41, (4, 6)), np.ones((10, 10))).astype(np.uint8)
        picture = rng.integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)
        Image.fromarray(picture[0]).save(root / f"images/{name}.png")
        Image.fromarray(classes).save(root / f"segmentation/{name}.png")
        Image.fromarray(picture[1]).save(root / f"normals/{name}.png")
        Image.fromarray(255 * boundary_map(classes).astype(np.uint8)).save(root / f"edge/{name}.png")
        np.save(root / f"depth/{name}.npy", rng.uniform(0.7, 9.9, (40, 60)).astype(np.float32))
    return root


def read(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_a_run_gets_the_metrics_that_its_training_ended_with(run, evaluate):
    code, out, errors = evaluate(run)
    assert (code, errors) == (0, [])
    assert (run / "evaluation" / "metrics.json").read_bytes() == (run / "metrics.json").read_bytes()
    assert "2 val images of pascal_context, 96x96" in out
    assert "protocol sak, exact matching" in out
    assert "Δm: none without" in out
    # A second time it refuses, and leaves the results as they were, unless told to replace them.
    (run / "evaluation" / "metrics.json").write_text("kept")
    code, _, errors = evaluate(run)
    assert (code, len(errors)) == (2, 1)
    assert "holds results already" in errors[0]
    assert (run / "evaluation" / "metrics.json").read_text() == "kept"
    assert evaluate(run, "--overwrite")[0] == 0
    assert read(run / "evaluation") == read(run)


def test_a_bundle_with_maps_that_can_be_evaluated_by_themselves(run, evaluate, tmp_path):
    code, _, errors = evaluate(run / "student", "--data", ARCHIVE, "--batch-size", 2, "--save-maps", "--output", "o")
    assert (code, errors) == (0, [])
    output, metrics = tmp_path / "o", read(tmp_path / "o")
    names = (ARCHIVE / "ImageSets/Context/val.txt").read_text().split()
    assert sorted(path.name for path in output.iterdir()) == sorted([*TASKS, "metrics.json", "results.md"])
    data = PascalContext(ARCHIVE, "val", image_size=(96, 96))
    maps, truths, angles, classes = [], [], [], np.zeros((21, 21), int)
    for index, name in enumerate(names):
        sample = data[index]
        (height, width), stored = sample["size"], {}
        for task in TASKS:
            stored[task] = np.array(Image.open(output / task / f"{name}.png"))
            assert stored[task].shape[:2] == (height, width)
        top, left = (96 - height) // 2, (96 - width) // 2
        window = np.s_[..., top : top + height, left : left + width]
        maps.append(stored["edge"])
        truths.append(sample["boundaries"].numpy()[window][0] == 1)
        semseg = sample["semseg"].numpy()[window]
        np.add.at(classes, (semseg[semseg != 255], stored["semseg"][semseg != 255]), 1)
        normals, label = 2.0 * stored["normals"] / 255 - 1, sample["normals"].numpy()[window].transpose(1, 2, 0)
        valid = (label != 255).all(-1)
        unit = [x[valid] / np.linalg.norm(x[valid], axis=-1, keepdims=True) for x in (normals, label)]
        angles.append(np.degrees(np.arccos((unit[0] * unit[1]).sum(-1).clip(-1, 1))))
    assert 100 * match_boundaries(maps, truths, 0.0075).ods_f == pytest.approx(metrics["edge"]["ods_f"], rel=1e-6)
    union = classes.sum(0) + classes.sum(1) - classes.diagonal()
    assert 100 * (classes.diagonal() / np.maximum(union, 1)).mean() == pytest.approx(metrics["semseg"]["miou"])
    rounding = np.degrees(np.sqrt(3) / 255)  # the most that 8 bits can turn a vector by
    assert np.concatenate(angles).mean() == pytest.approx(metrics["normals"]["mean_error"], abs=rounding)
    assert read(run)["semseg"]["miou"] == pytest.approx(metrics["semseg"]["miou"])


def test_other_boundary_protocol_and_split(run, evaluate, tmp_path):
    assert evaluate(run, "--boundaries", "invpt", "--output", "invpt")[0] == 0
    assert "edge: protocol invpt" in (tmp_path / "invpt" / "results.md").read_text()
    other, own = read(tmp_path / "invpt"), read(run)
    assert other["edge"] != own["edge"]
    assert other["semseg"] == own["semseg"]
    assert evaluate(run, "--split", "train", "--output", "train")[0] == 0
    assert read(tmp_path / "train")["normals"] != own["normals"]


def test_a_published_baseline_stands_beside_the_results(run, evaluate):
    code, out, _ = evaluate(run, "--baseline", "single_task_pascal_vitb")
    assert code == 0
    single = {"semseg": 80.25, "human_parts": 70.54, "saliency": 84.54, "normals": 13.57, "edge": 74.22}
    headline = {"saliency": "max_f", "normals": "mean_error", "edge": "ods_f"}
    baseline = {task: {headline.get(task, "miou"): value} for task, value in single.items()}
    for text in (out, (run / "evaluation" / "results.md").read_text()):
        assert (
            f"Δm: {delta_m(read(run), baseline, HEADLINES):+.2f} % against single_task_pascal_vitb (SAK (arXiv" in text
        )
        assert re.search(r"normals[ |]+mean_error[ |]+[\d.]+[ |]+13\.57[ |]+-[\d.]+[ |]+degrees", text)


def test_own_single_task_runs_add_up_to_a_baseline(run, evaluate, tmp_path):
    headline = {"saliency": "max_f", "normals": "mean_error", "edge": "ods_f"}
    baseline = {task: {headline.get(task, "miou"): 30.0} for task in TASKS}
    for task in TASKS:
        (tmp_path / task).mkdir()
        (tmp_path / task / "metrics.json").write_text(json.dumps({task: baseline[task]}))
    code, out, errors = evaluate(
        run, *(part for task in TASKS for part in ("--baseline", task if task != "edge" else "edge/metrics.json"))
    )
    assert (code, errors) == (0, [])
    names = "semseg + human_parts + saliency + normals + edge/metrics.json"
    assert f"Δm: {delta_m(read(run), baseline, HEADLINES):+.2f} % against {names}" in out


def test_published_checkpoints_and_their_bundles(published, nyud, evaluate, tmp_path):
    for name, data, size in (("pascal_a", ARCHIVE, PUBLISHED), ("nyud_a", nyud, PUBLISHED_NYUD)):
        direct = evaluate(published[name], "--data", data, *size, "--output", f"{name}.direct", "--save-maps")
        assert (direct[0], direct[2]) == (0, []), direct
        converted = evaluate(published[name], f"{name}.bundle", *size, tool="convert_official")
        assert (converted[0], converted[2]) == (0, []), converted
        assert evaluate(f"{name}.bundle", "--data", data, "--output", f"{name}.out")[0] == 0
        assert (tmp_path / f"{name}.direct/metrics.json").read_bytes() == (
            tmp_path / f"{name}.out/metrics.json"
        ).read_bytes()
    depth = np.load(tmp_path / "nyud_a.direct/depth/0002.npy")
    assert (depth.dtype, depth.shape) == (np.float32, (40, 60))
    rmse = [
        (np.load(tmp_path / f"nyud_a.direct/depth/{i}.npy").clip(0) - np.load(nyud / f"depth/{i}.npy")) ** 2
        for i in ("0001", "0002", "0003")
    ]
    assert np.sqrt(np.mean(rmse)) == pytest.approx(read(tmp_path / "nyud_a.out")["depth"]["rmse"], rel=1e-5)


def unfinished(run):
    shutil.rmtree(run / "student")


def without_heads(run):
    Student("vit_tiny_patch16_384", [96, 96], {}, {}, levels=[0]).save_pretrained(run / "student")


def other_architecture(run):
    path = run / "student" / "model.safetensors"
    safetensors.torch.save_file({"conv1.weight": torch.ones(3)}, path)


def data_edit(path, edit):
    def change(run):
        archive = Path(shutil.copytree(ARCHIVE, run.parent / "archive"))
        settings = (run / "config.yaml").read_text().replace(str(ARCHIVE), str(archive))
        (run / "config.yaml").write_text(settings)
        edit(archive / path)

    return change


def strange_class(path):
    classes = np.array(Image.open(path))
    classes[0, 0] = 77
    Image.fromarray(classes).save(path)


def baseline_without_edge(run):
    figures = {task: {"miou": 50.0, "max_f": 50.0, "mean_error": 20.0} for task in TASKS[:-1]}
    (run.parent / "own.json").write_text(json.dumps(figures))


def some_file(run):
    (run.parent / "file").write_text("")


def nothing(run):
    pass


# {what: (how it comes about, further arguments, the message)}
MISTAKES = {
    "unfinished run": (unfinished, (), r"tiny is unfinished: it has no student/"),
    "distilled only": (without_heads, (), "has no task heads"),
    "weights of something else": (other_architecture, (), r"student cannot be read as a bundle \(.*state_dict"),
    "indivisible image": (nothing, ("--image-size", 96, 90), "96x90 is not divisible by the stem's patch size 16"),
    "no such root": (nothing, ("--data", "nowhere"), "nowhere.*no such directory"),
    "another data set's tasks": (nothing, ("--dataset", "nyud", "--data", "."), r"human_parts: 7.* not those of nyud"),
    "another data set without its root": (nothing, ("--dataset", "mini_context"), "say where mini_context lies"),
    "unknown data set": (nothing, ("--dataset", "coco", "--data", "."), "unknown data set 'coco'; known: mini_"),
    "truncated .mat": (
        data_edit("human_parts/2008_001003.mat", lambda path: os.truncate(path, 700)),
        (),
        r"human_parts/2008_001003\.mat is corrupt",
    ),
    "label out of range": (
        data_edit("semseg/VOC12/2008_001002.png", strange_class),
        ("--batch-size", 1),
        r"semseg/VOC12/2008_001002\.png holds the value 77, but there are 21 classes",
    ),
    "output is a file": (some_file, ("--output", "file"), "file cannot be used"),
    "output below a file": (some_file, ("--output", "file/out"), "file/out cannot be used"),
    "unknown baseline": (nothing, ("--baseline", "best"), "no baseline best.*single_task_nyud_vitb, single_task_pasc"),
    "baseline of another benchmark": (nothing, ("--baseline", "single_task_nyud_vitb"), "is of nyud, but"),
    "baseline under another protocol": (
        nothing,
        ("--baseline", "single_task_pascal_vitb", "--boundaries", "invpt"),
        "evaluated under the protocol sak",
    ),
    "baseline lacks a task": (baseline_without_edge, ("--baseline", "own.json"), r"own\.json lacks edge\.ods_f"),
    "baseline twice": (
        baseline_without_edge,
        ("--baseline", "own.json", "--baseline", "single_task_pascal_vitb"),
        r"own\.json and single_task_pascal_vitb both have semseg",
    ),
    "baseline unfinished": (some_file, ("--baseline", "."), "holds no metrics.json"),
    "baseline is no JSON": (some_file, ("--baseline", "file"), "file is no JSON"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(run, evaluate, mistake, tmp_path):
    make, arguments, message = MISTAKES[mistake]
    make(run)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    code, out, errors = evaluate(run, *arguments)
    assert (code, len(errors), out) == (2, 1, "")
    assert re.search(message, errors[0]), errors[0]
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("target", "arguments", "message"),
    [
        ("pascal_a", ("--data", "NYUD", *PUBLISHED), r"ImageSets/Context/val\.txt.* is missing.* the right archive"),
        ("nyud_a", ("--data", ARCHIVE, *PUBLISHED_NYUD), r"gt_sets/val\.txt.* is missing.* the right archive"),
        ("pascal_a", ("--data", ARCHIVE, "--image-size", 96, 96, "--num-heads", 4), "has 25 tokens, but 96x96"),
        ("pascal_a", ("--data", ARCHIVE, "--num-heads", 4), "no published size has so many"),
        ("pascal_a", ("--data", ARCHIVE, "--image-size", 64, 96), "32 is no multiple of 64: give num_heads"),
        ("pascal_a", ("--data", "NYUD", "--dataset", "nyud", *PUBLISHED), "NYUD-v2 has no task|needs 40"),
        ("pascal_a", PUBLISHED, "say where pascal_context lies: --data ROOT"),
        ("stage_1", ("--data", "NYUD", *PUBLISHED_NYUD), "stage_1.pth has no task heads"),
        ("resnet.pth", ("--data", "NYUD"), "resnet.pth is no checkpoint of the published SAK code"),
        ("file.pth", ("--data", "NYUD"), "file.pth cannot be read as weights"),
        ("no/where", ("--data", "NYUD"), "no/where does not exist here, and from the hub cannot be read"),
        ("nowhere", ("--data", "NYUD"), "nowhere is no run directory"),
    ],
)
def test_a_target_that_does_not_fit_is_one_line(published, nyud, evaluate, tmp_path, target, arguments, message):
    torch.save({"conv1.weight": torch.ones(3)}, tmp_path / "resnet.pth")
    (tmp_path / "file.pth").write_bytes(b"PK")
    arguments = [nyud if argument == "NYUD" else argument for argument in arguments]
    code, out, errors = evaluate(published.get(target, target), *arguments)
    assert (code, len(errors), out) == (2, 1, "")
    assert re.search(message, errors[0]), errors[0]


def test_tasks_that_two_benchmarks_have_need_a_name(evaluate, nyud, tmp_path):
    student = Student(
        "vit_tiny_patch16_384",
        [48, 64],
        {"normals": 3, "edge": 1},
        {},
        levels=[0, 1],
        stem_options={"embed_dim": 32, "depth": 2, "num_heads": 2},
    )
    student.save_pretrained(tmp_path / "bundle")
    code, _, errors = evaluate("bundle", "--data", nyud)
    assert code == 2
    assert "fit pascal_context and nyud alike: name the data set with --dataset" in errors[0]
    code, _, errors = evaluate("bundle", "--data", nyud, "--dataset", "nyud")
    assert (code, errors) == (0, [])
    assert list(read(tmp_path / "evaluation" / "bundle")) == ["normals", "edge"]

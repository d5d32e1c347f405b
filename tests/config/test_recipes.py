"""The shipped configs: what they say at their top, what they build, and that the baselines train."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from sak import Student, config
from sak.bundles.build import build_student, build_tasks
from sak.config.derived import left_out
from sak.training.train import train
from teachers import Committee

ROOT = Path(__file__).parents[2]
OURS = ("sak_pascal_mini", "sak_pascal_small", "distill_folder", "scales_mini")  # which no paper has
FULL = sorted(
    path
    for path in (ROOT / "configs").rglob("*.yaml")
    if path.stem not in OURS and path.parent.name != "adapt" and not path.stem.startswith("vary")
)
COMMITTEE = {"dinov2": 768, "clip": 768, "sam": 768}


def header(path):
    return "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))


def sketch(settings):
    """The student of a config, without memory for its weights, at the end of its last stage, and its parts in M."""
    with torch.device("meta"):
        dims = {name: [COMMITTEE[name]] * len(spec.levels) for name, spec in settings.teachers.items()}
        student = build_student(settings, build_tasks(settings.data), dims)
        student.set_image_size(settings.data.image_size)
        student.drop_aligners()
    parts = ("stem", "paths", "routers", "heads")
    return student, {part: sum(p.numel() for p in getattr(student, part).parameters()) / 1e6 for part in parts}


@pytest.mark.parametrize("path", FULL, ids=lambda path: path.stem)
def test_a_config_opens_with_its_command_the_published_result_and_its_cost(path):
    text = header(path)
    command = shlex.split(text.splitlines()[0].removeprefix("# "))
    assert command[:3] == ["python", "tools/train.py", str(path.relative_to(ROOT))]
    config.load(path, command[3:])
    assert re.search(r"Published: \w.* Cost: \D*[\d,]+ steps of .* EFLOP", text.replace("\n# ", " "))
    assert max(map(len, path.read_text().splitlines())) <= 120


@pytest.mark.parametrize("path", FULL, ids=lambda path: path.stem)
def test_a_config_builds_its_student(path):
    settings = config.load(path)
    student, parts = sketch(settings)
    assert list(student.heads) == settings.data.tasks
    assert student.stem.image_size == tuple(settings.data.image_size)
    apart = list(settings.teachers) if settings.student.paths == "adapter" else []
    assert student.sources == ("stem", *apart)
    assert (parts["routers"] > 0) == (bool(apart) and settings.student.router == "mor")
    assert (parts["paths"] > 0) == bool(apart)
    if settings.teachers:  # the rule by which the paper chooses levels
        quarters = [student.stem.depth * part // 4 - 1 for part in (1, 2, 3, 4)]
        assert list(student.levels) == quarters


def test_the_published_committee():
    """Its architectures exist, take the options, and have the levels and widths that the other tests assume."""
    specs = config.load(ROOT / "configs" / "sak_pascal.yaml").teachers
    for spec in specs.values():
        spec.weights = "random"
    with torch.device("meta"):
        committee = Committee({name: OmegaConf.to_object(spec) for name, spec in specs.items()})
    assert committee.dims == {name: [width] * 4 for name, width in COMMITTEE.items()}
    assert committee["dinov2"].grid(512, 512) == (37, 37)
    assert committee["clip"].grid(448, 576) == (28, 36)
    assert committee["sam"].resized(512, 512) == (1024, 1024)


def test_parameters_are_the_papers():
    _, parts = sketch(config.load(ROOT / "configs" / "sak_pascal.yaml"))
    published = {"stem": 86.4, "paths": 11.5, "routers": 6.0, "heads": 29.5}
    assert parts == pytest.approx(published, abs=0.1)
    assert sum(parts.values()) == pytest.approx(133, abs=0.6)
    _, parts = sketch(config.load(ROOT / "configs" / "sak_pascal_vit_l.yaml"))
    assert sum(parts.values()) == pytest.approx(406.5, abs=0.3)


def in_miniature(path):
    """The arguments of the command that a baseline names for the embedded data set."""
    (command,) = re.findall(r"In miniature: (python .*?)(?=\n[^#]|\n# [A-Z]|\Z)", header(path) + "\n", re.DOTALL)
    return shlex.split(command.replace("\\\n#", ""))[2:]


MINIATURES = [path for path in FULL if path.parent.name == "baselines" and not path.stem.endswith("_nyud")]


@pytest.mark.parametrize("path", MINIATURES, ids=lambda path: path.stem)
def test_the_miniature_of_a_baseline_is_the_same_baseline(path):
    file, *overrides = in_miniature(path)
    mini, full = config.load(ROOT / file, overrides), config.load(path)
    assert mini.name == f"mini_{full.name}"
    for key in ("data.tasks", "student.paths", "student.router"):
        assert OmegaConf.select(mini, key) == OmegaConf.select(full, key), key
    for loaded, base in ((mini, "sak_pascal_mini"), (full, "sak_pascal")):  # which differ, and no baseline from its own
        own = config.load(ROOT / "configs" / f"{base}.yaml")
        for key in ("student.aligner", "student.path_norm", "stages.multitask.alpha"):
            assert OmegaConf.select(loaded, key) == OmegaConf.select(own, key), key
    assert list(mini.teachers) == list(full.teachers)
    assert left_out(mini.stages.distill) == left_out(full.stages.distill)


BRIEF = ["stages.multitask.evaluate_every=null", "stages.distill.steps=2", "stages.multitask.steps=2"]


def test_the_many_to_one_student_trains_in_both_stages(tiny):
    run = train(config.load(tiny, [*BRIEF, "student.paths=none", "data.tasks=[semseg,normals]"]))
    student = Student.from_pretrained(run.student)
    assert student.sources == ("stem",)
    assert not list(student.paths.parameters())
    assert set(json.loads(run.metrics.read_text())) == {"semseg", "normals"}
    first, last = (
        torch.load(run.checkpoints / f"{name}-0000002.pt", weights_only=True)["student"]
        for name in ("distill", "multitask")
    )
    moved = {key.split(".")[0] for key in first if not torch.equal(first[key], last[key])}
    assert moved == {"stem", "paths", "heads"}


def test_a_single_task_trains_without_teachers(tiny):
    settings = config.load(tiny, [*BRIEF, "teachers.dinov2=null", "stages.distill.steps=0", "data.tasks=[human_parts]"])
    run = train(settings)
    assert set(json.loads(run.metrics.read_text())) == {"human_parts"}
    assert {key.split(".")[0] for key in Student.from_pretrained(run.student).state_dict()} == {"stem", "heads"}

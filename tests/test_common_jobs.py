"""The page of common jobs: what stands there runs, in its order."""

import json
import re
import runpy
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

import sak

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "common_jobs.md").read_text(encoding="utf-8")
FEW = ["stages.distill.steps=2", "stages.multitask.steps=2", "stages.multitask.evaluate_every=null",
       "stages.distill.batch_size=2", "stages.multitask.batch_size=2", "data.workers=0"]  # fmt: skip


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


FILES = {re.match(r"# (\S+)\n", text)[1]: text for language in ("yaml", "python") for text in blocks(language)}
COMMANDS = [line for block in blocks("bash") for line in block.splitlines()]


@pytest.fixture
def place(strangers, tmp_path, monkeypatch):
    """Where a user of the page works: data, pictures, and the page's files."""
    shutil.copytree(strangers, tmp_path / "street")
    shutil.copytree(strangers / "images" / "val", tmp_path / "photos")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    rng = np.random.default_rng(0)
    for path in strangers.glob("images/*/*.jpg"):
        file = tmp_path / "street" / "materials" / path.parent.name / f"{path.stem}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 3, (48, 48)).astype(np.uint8)).save(file)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_every_job_runs_as_it_stands(place, call_tool, capsys, pictures):
    for line in COMMANDS:
        words = [word for word in shlex.split(line) if not word.startswith("PYTHONPATH=")]
        assert words[0] == "sak", line
        words += FEW if words[1] in ("train", "doctor", "ablate_teachers") else []
        if "slurm" in words:  # there is none here
            words = ["local" if word == "slurm" else word for word in words] + ["--dry-run"]
        code, out, errors = call_tool(words[1], *words[2:])
        assert (code, errors) == (0, []), (line, out)
    runs = {name: json.loads((place / "runs" / name / "metrics.json").read_text()) for name in
            ("street", "materials", "pyramid", "tuned")}  # fmt: skip
    assert runs["materials"].keys() == {"semseg", "materials"}
    described = json.loads((place / "runs/street/student/config.json").read_text())["descriptions"]
    assert described["semseg"]["classes"] == ["background", "person", "animal", "vehicle", "thing"]
    teachers = json.loads((place / "runs/pyramid/student/config.json").read_text())["teachers"]
    assert [name for name, _ in teachers] == ["dinov2", "clip", "sam", "mine"]
    (first, *_) = found = sorted((place / "predictions" / "semseg").rglob("*.png"))
    assert len(found) == 3
    prediction = sak.Predictor(place / "runs/street")(next((place / "photos").iterdir()))
    assert prediction.classes == {"semseg": ["background", "person", "animal", "vehicle", "thing"]}
    assert np.asarray(Image.open(first)).max() < 5
    assert "tuned" in (place / "comparison" / "comparison.md").read_text()
    runpy.run_path(str(place / "features.py"))
    assert capsys.readouterr().out.splitlines()[-1] == str([(2, 128, 12, 12)] * 4)
    merged = Config.fromfile(place / "upernet.py")
    assert merged.model.backbone.type == "SAKStudent"
    assert merged.model.backbone.source == "dinov2"

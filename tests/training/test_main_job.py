"""The main job at its full length: what the README promises of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_task_beats_its_best_constant_prediction(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    command = [sys.executable, "tools/train.py", "configs/sak_pascal_mini.yaml"]
    overrides = [f"output={tmp_path}", f"data.root={tmp_path}/mini_context"]
    subprocess.run(command + overrides, cwd=ROOT, env=environment, check=True)
    run = tmp_path / "sak_pascal_mini"
    student, constant = (json.loads((run / name).read_text()) for name in ("metrics.json", "constants.json"))
    assert student["semseg"]["miou"] >= 6 * constant["semseg"]["miou"]
    assert student["human_parts"]["miou"] >= 1.6 * constant["human_parts"]["miou"]
    assert student["saliency"]["max_f"] >= 2.8 * constant["saliency"]["max_f"]
    assert student["saliency"]["miou"] >= 2.5 * constant["saliency"]["miou"]
    assert student["normals"]["mean_error"] <= 0.5 * constant["normals"]["mean_error"]
    assert student["edge"]["ods_f"] >= constant["edge"]["ods_f"] + 40

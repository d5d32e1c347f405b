"""What a result was made with: enough to make it again."""

import json
import subprocess

import torch

from sak import environment


def test_libraries_and_machine_are_told(trained):
    noted = json.loads((trained / "environment.json").read_text())
    assert noted["torch"] == torch.__version__
    for library in ("timm", "open_clip_torch", "segment-anything", "onedl-mmsegmentation", "accelerate", "numpy"):
        assert noted[library][0].isdigit(), library
    assert noted["cores"] >= 1
    assert noted["processor"]
    assert noted["gpus"] == []  # tests hide them


def test_what_is_not_there_is_null(monkeypatch):
    def no_repository(*arguments, **options):
        raise subprocess.CalledProcessError(128, "git")

    monkeypatch.setattr(subprocess, "run", no_repository)
    monkeypatch.setattr(environment, "LIBRARIES", ("numpy", "no-such-library"))
    noted = environment.describe()
    assert noted["git"] is None
    assert noted["no-such-library"] is None
    assert noted["numpy"]

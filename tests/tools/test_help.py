"""What every tool answers before it loads a library of models."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = sorted((Path(__file__).parents[2] / "tools").glob("*.py"))
HEAVY = {"torch", "timm", "matplotlib", "accelerate", "scipy", "cv2", "open_clip", "mmseg"}
REPORT = """
import runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("loaded:", *sys.modules)
"""


def run(*command):
    """(exit code, what it said, the modules that it loaded)"""
    done = subprocess.run([sys.executable, "-c", REPORT, *map(str, command)], capture_output=True, text=True)
    said, _, modules = done.stdout.rpartition("loaded:")
    return done.returncode, said, done.stderr, set(modules.split())


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.stem)
def test_help_is_light_and_has_an_example(tool):
    code, said, _, modules = run(tool, "--help")
    assert code == 0
    assert f"python tools/{tool.name}" in said
    assert not HEAVY & modules


def test_a_mistake_in_a_config_is_told_before_torch_is_loaded(tmp_path):
    file = tmp_path / "mistake.yaml"
    file.write_text("nam: x")
    code, _, error, modules = run(TOOLS[0].parent / "train.py", file)
    assert code == 2
    assert error.strip().endswith("unknown key nam; the nearest known key is name")
    assert not HEAVY & modules


def test_the_package_itself_is_light():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, sak; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(done.stdout.split())

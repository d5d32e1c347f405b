"""What all tests share: no network, no GPU, a seed; and a tiny experiment on the small archive of the fixtures."""

import contextlib
import gc
import os
import runpy
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

# Set before torch or any hub client is imported: tests run offline and on the CPU, and several of them side by side.
os.environ["HF_HUB_OFFLINE"] = "1"
if "gpu" not in sys.argv:  # `pytest -m gpu`
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch
from PIL import Image

from sak import cli, config
from sak.evaluation.panel import Panel
from sak.training import checkpoint, tracking
from sak.training.train import train

torch.set_num_threads(1)
# The first backward pass decides how many threads autograd has: under a FakeTensorMode, which pretends that there is a
# GPU, it would be more than this one, and a process with such threads cannot be forked by the tests that do.
torch.ones(1, requires_grad=True).sum().backward()

ARCHIVE = Path(__file__).parent / "fixtures" / "pascal_format" / "PASCALContext"
STRANGERS = (Path(__file__).parent / "fixtures" / "own.yaml").read_text(
    encoding="utf-8"
)  # with {tiny}, the config that it extends, and {root}
TINY = (Path(__file__).parent / "fixtures" / "tiny.yaml").read_text(encoding="utf-8")  # with {output} and {root}


# The pictures of a run's evaluations: three quarters of the time of one as short as those of the tests.
PICTURES = [(Panel, "draw"), (tracking, "routing_heat_map"), (tracking.Tracker, "figure")]
DRAWN = [getattr(*place) for place in PICTURES]


def pytest_collection_finish():
    # A training collects garbage at its end, and need not look through all libraries for it.
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def replaced(functions):
    with pytest.MonkeyPatch.context() as patch:
        for place, function in zip(PICTURES, functions, strict=True):
            patch.setattr(*place, function)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_pictures():
    """Runs leave out their pictures, but for what asks for `pictures` or `drawing`."""
    with replaced([lambda *_: None] * len(PICTURES)):
        yield


@pytest.fixture(scope="session")
def drawing(no_pictures):
    """Gives a context in which runs draw their pictures."""
    return lambda: replaced(DRAWN)


@pytest.fixture
def pictures(drawing):
    """Of tests that look at a run's pictures, or whose data, tasks or teachers make other ones than most."""
    with drawing():
        yield


@pytest.fixture
def archive(tmp_path):
    """A copy, for tests that damage it."""
    return Path(shutil.copytree(ARCHIVE, tmp_path / "archive"))


@pytest.fixture(scope="session")
def tiny_text():
    """The config of the tiny experiment, in which output and root are to be filled in."""
    return TINY


@pytest.fixture
def tiny(tmp_path):
    """The config file of the tiny experiment."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.format(output=tmp_path / "runs", root=ARCHIVE))
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory, drawing):
    """The directory of the tiny experiment's finished run; for tests that only read it, or copy it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(TINY.format(output=folder / "runs", root=ARCHIVE))
    with drawing():
        return train(config.load(folder / "tiny.yaml")).path


OWN_CLASSES = {"background": [0], "person": [15], "animal": [3, 8, 10, 12, 13, 17], "vehicle": [1, 2, 4, 6, 7, 14, 19]}
OWN_VALUES = [10, 20, 30, 40, 50]  # how a stranger stores them; the fifth class is all that is left, 0 is unlabelled


@pytest.fixture(scope="session")
def strangers(tmp_path_factory):
    """Somebody's data in folders of his own, of rendered scenes: images, five classes, depth in millimetres.

    One training image has no depth, and one no labels at all. For tests that only read it, or copy it.
    """
    from sak.data.mini.drawing import draw

    root = tmp_path_factory.mktemp("stranger") / "street"
    for split, count in (("train", 6), ("val", 3)):
        for task in ("images", "semseg", "depth"):
            (root / task / split).mkdir(parents=True)
        for index in range(count):
            _, rendering, _ = draw(3, split, index, 48)
            coded = np.full(rendering.semseg.shape, OWN_VALUES[-1], np.uint8)
            for value, labels in zip(OWN_VALUES, OWN_CLASSES.values(), strict=False):
                coded[np.isin(rendering.semseg, labels)] = value
            coded[:2] = 0
            depth = np.where(np.isfinite(rendering.depth), 1000 * rendering.depth, 0).clip(0, 65535).astype(np.uint16)
            Image.fromarray(rendering.image).save(root / "images" / split / f"a{index}.jpg")
            Image.fromarray(coded).save(root / "semseg" / split / f"a{index}.png")
            Image.fromarray(depth).save(root / "depth" / split / f"a{index}.png")
    for place in ("semseg/train/a5.png", "depth/train/a4.png", "depth/train/a5.png"):
        (root / place).unlink()
    return root


@pytest.fixture(scope="session")
def strangers_text():
    """The config of an experiment on it, in which the tiny one and root are to be filled in."""
    return STRANGERS


@pytest.fixture(scope="session")
def reference():
    """Gives a module of tests/reference by its name."""
    return lambda name: SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "reference" / f"{name}.py")))


@pytest.fixture(scope="session")
def processes(reference):
    """Forks processes."""
    return reference("processes")


@pytest.fixture
def call_tool(monkeypatch, tmp_path, capsys):
    """Call a tool as the command line does, in an empty directory; returns (exit code, stdout, the error lines)."""
    monkeypatch.chdir(tmp_path)

    def call(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        code = 0
        try:
            cli.run(runpy.run_path(str(Path(__file__).parents[1] / "tools" / f"{name}.py"))["main"])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, [line for line in err.replace("\r", "\n").splitlines() if line.startswith("error: ")]

    return call


@pytest.fixture
def train_until_killed(monkeypatch):
    """Train until the first checkpoint of a stage has been written, and die there."""

    def until(settings, stage):
        save = checkpoint.save

        def dying(directory, progress, state, keep):
            save(directory, progress, state, keep)
            if progress == checkpoint.Progress(stage, 1):
                raise InterruptedError

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "save", dying)
            with pytest.raises(InterruptedError):
                train(settings)

    return until


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)

"""Two real processes (gloo) give the same bytes as one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sak.evaluation.benchmark import run_benchmark
from sak.evaluation.subject import open_subject

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT / "tests" / "fixtures" / "pascal_format" / "PASCALContext"

# Of three images: two and one; all for the first process and none for the second; a full batch and the rest.
CASES = {"divided": (1, 1), "none": (8, 0), "uneven": (2, 0)}  # {name: (batch size, workers)}

SCRIPT = """
import sys
from pathlib import Path
from accelerate import Accelerator
from sak.evaluation.benchmark import run_benchmark
from sak.evaluation.subject import open_subject

if __name__ == "__main__":
    run, archive, output, *cases = sys.argv[1:]
    end, Accelerator.end_training = Accelerator.end_training, lambda self: None  # the processes stay for the next case
    for case in cases:
        name, batch_size, workers = case.split(",")
        subject = open_subject(run, root=archive)
        subject.batch_size, subject.data.workers = int(batch_size), int(workers)
        run_benchmark(subject, Path(output) / name, save_maps=True)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    end(accelerator)
"""


@pytest.fixture
def archive(tmp_path):
    """Three validation images, whose masks and sizes differ."""
    root = Path(shutil.copytree(ARCHIVE, tmp_path / "archive"))
    (root / "ImageSets/Context/val.txt").write_text("2008_001003\n2008_001000\n2008_001002\n")
    return root


def test_two_processes_equal_one(trained, archive, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    cases = [f"{name},{batch_size},{workers}" for name, (batch_size, workers) in CASES.items()]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
    ]
    done = subprocess.run(
        [*command, "--standalone", "script.py", trained, archive, "two", *cases],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 val images of pascal_context") == len(CASES)  # one process speaks
    for name, (batch_size, _) in CASES.items():
        subject = open_subject(str(trained), root=str(archive))
        subject.batch_size = batch_size
        run_benchmark(subject, tmp_path / "one" / name, save_maps=True)
        one, two = (files(tmp_path / number / name) for number in ("one", "two"))
        assert len(one) == 2 + 5 * 3
        assert one == two


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

"""Two real processes (gloo) give the same bytes as one."""

import shutil
from pathlib import Path

import pytest
from accelerate import Accelerator

from sak.evaluation.benchmark import run_benchmark
from sak.evaluation.subject import open_subject

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT / "tests" / "fixtures" / "pascal_format" / "PASCALContext"

# Of three images: two and one; all for the first process and none for the second; a full batch and the rest.
CASES = {"divided": (1, 1), "none": (8, 0), "uneven": (2, 0)}  # {name: (batch size, workers)}


@pytest.fixture
def archive(tmp_path):
    """Three validation images, whose masks and sizes differ."""
    root = Path(shutil.copytree(ARCHIVE, tmp_path / "archive"))
    (root / "ImageSets/Context/val.txt").write_text("2008_001003\n2008_001000\n2008_001002\n")
    return root


@pytest.mark.slow  # tests/training/test_processes.py compares metrics of two processes with those of one, too
def test_two_processes_equal_one(trained, archive, tmp_path, processes):
    def evaluate():
        # The processes stay for the next case.
        end, Accelerator.end_training = Accelerator.end_training, lambda self: None
        for name, (batch_size, workers) in CASES.items():
            subject = open_subject(str(trained), root=str(archive))
            subject.batch_size, subject.data.workers = batch_size, workers
            run_benchmark(subject, tmp_path / "two" / name, save_maps=True)
        accelerator = Accelerator(cpu=True)
        assert accelerator.num_processes == 2
        end(accelerator)

    ended = processes.two(evaluate, tmp_path)
    assert [process.code for process in ended] == [0, 0], ended
    # One process speaks.
    assert [process.out.count("3 val images of pascal_context") for process in ended] == [len(CASES), 0]
    for name, (batch_size, _) in CASES.items():
        subject = open_subject(str(trained), root=str(archive))
        subject.batch_size = batch_size
        run_benchmark(subject, tmp_path / "one" / name, save_maps=True)
        one, two = (files(tmp_path / number / name) for number in ("one", "two"))
        assert len(one) == 2 + 5 * 3
        assert one == two


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

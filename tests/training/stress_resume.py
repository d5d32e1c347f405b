"""Kill a training at random moments, start it again each time, and compare its end with that of one never killed.

    python tests/training/stress_resume.py --kills 50
    python tests/training/stress_resume.py --kills 50 --half

Both stages, with augmentation, accumulated micro-batches, worker processes, a cache of features in the first stage,
evaluations and the best student; with --half in float16, whose scaler halves and doubles its scale. A third of the
kills (SIGKILL) wait until a checkpoint is being written, a tenth fall between the stages, and every other one spares
the workers, which are then orphans. Exit code 0 if not one number differs.

Each training is a process forked from this one, which has the libraries loaded: starting them anew would take longer
than training.
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # equal to the bit is promised on CPUs

import fp16_on_cpu
import torch

from sak import config
from sak.training import train as training

FIXTURES = Path(__file__).parents[1] / "fixtures"
ARCHIVE = FIXTURES / "pascal_format" / "PASCALContext"
TINY = (FIXTURES / "tiny.yaml").read_text(encoding="utf-8")

PATIENCE = 300  # seconds without any progress
STEPS_PER_KILL = 3  # of each stage
EPOCH = 16  # images
STAGES = ("distill", "multitask")


def settings(folder: Path, kills: int, half: bool) -> list[str]:
    """A small archive, and the overrides of a training over it with that many steps for each kill."""
    archive = Path(shutil.copytree(ARCHIVE, folder / "archive"))
    names = archive / "ImageSets" / "Context" / "train.txt"
    names.write_text(names.read_text() * (EPOCH // 2))
    steps = max(STEPS_PER_KILL * kills, 12)
    both = {"steps": steps, "accumulate": 2, "checkpoint_every": 2}
    return [
        f"output={folder}",
        f"data.root={archive}",
        "data.workers=1",
        "data.tasks=[semseg,normals]",
        "cache.views=3",
        *(f"stages.{stage}.{key}={value}" for stage in STAGES for key, value in both.items()),
        "stages.distill.batch_size=4",
        f"stages.multitask.evaluate_every={max(4, steps // 8)}",
        "stages.multitask.keep_best=semseg.miou",
        *(["precision=fp16"] if half else []),
    ]


def _train(file: Path, overrides: list[str], log: Path) -> None:
    os.setsid()  # so that a kill can reach the workers that load data too
    code = 1
    with open(log, "w") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        warnings.simplefilter("ignore")
        try:
            training.build_accelerator = fp16_on_cpu.build()
            training.train(config.load(file, overrides))
            code = 0
        except BaseException:
            traceback.print_exc()
    os._exit(code)  # what is left of the parent's is not for the child to tidy up


class Training:
    """One process that trains."""

    def __init__(self, file: Path, name: str, overrides: list[str]):
        self.run, self.log = file.parent / name, file.parent / f"{name}.log"
        # A cache for each, or the second would find all that the first has computed.
        own = [*overrides, f"name={name}", f"cache.path={file.parent / 'cache' / name}"]
        self.process = multiprocessing.get_context("fork").Process(target=_train, args=(file, own, self.log))
        self.process.start()

    @property
    def writing(self) -> bool:
        return any(name.endswith(".partial") for name in self._checkpoints())

    def has_come_to(self, stage: str, step: int) -> bool:
        saved = [name.removesuffix(".pt").split("-") for name in self._checkpoints() if name.endswith(".pt")]
        done = [(STAGES.index(stage), int(step)) for stage, step in saved if stage in STAGES]
        return step == 0 or max(done, default=(0, 0)) >= (STAGES.index(stage), step)

    def finish(self) -> None:
        self.process.join()
        if self.process.exitcode:
            raise RuntimeError(self.log.read_text())

    def kill(self, stage: str, step: int, pause: float, at_writing: bool, with_workers: bool) -> bool:
        """Let it come to this step, or be there again, and kill it some seconds after; False if it has ended before."""
        alive = self._wait(lambda: self.has_come_to(stage, step))
        if alive:
            end = time.monotonic() + pause
            alive = self._wait(lambda: time.monotonic() > end)
        if alive and at_writing:
            alive = self._wait(lambda: self.writing)
        if alive:
            (os.killpg if with_workers else os.kill)(self.process.pid, signal.SIGKILL)
        self.process.join()
        if self.process.exitcode not in (0, -signal.SIGKILL):
            raise RuntimeError(self.log.read_text())
        return alive

    def _checkpoints(self) -> set[str]:
        directory = self.run / "checkpoints"
        return set(os.listdir(directory)) if directory.is_dir() else set()

    def _wait(self, condition) -> bool:
        """Until the condition holds; False if the process ended before."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if not self.process.is_alive():
                return False
            if time.monotonic() > deadline:
                raise TimeoutError("the training makes no progress")
            time.sleep(0.0002)
        return True


def flat(content, prefix: str = "") -> dict:
    if isinstance(content, dict):
        return {k: v for key, inner in content.items() for k, v in flat(inner, f"{prefix}{key}.").items()}
    if isinstance(content, list):
        return {k: v for index, inner in enumerate(content) for k, v in flat(inner, f"{prefix}{index}.").items()}
    return {prefix: content}


def differences(one: Path, other: Path) -> list[str]:
    """What is not equal to the bit in the results and the last checkpoints of two runs."""
    bundles = [
        f"{bundle}/{file}" for bundle in ("student", "student_best") for file in ("model.safetensors", "config.json")
    ]
    found = [
        name
        for name in ("metrics.json", "constants.json", "student_best/best.json", *bundles)
        if (one / name).read_bytes() != (other / name).read_bytes()
    ]
    files = [sorted(file.name for file in (run / "checkpoints").iterdir()) for run in (one, other)]
    if files[0] != files[1]:
        found.append(f"checkpoints: {files}")
    for file in files[0]:
        states = [flat(torch.load(run / "checkpoints" / file, weights_only=True)) for run in (one, other)]
        if states[0].keys() != states[1].keys():
            found.append(f"{file}: its keys")
        for key in states[0].keys() & states[1].keys():
            ours, theirs = states[0][key], states[1][key]
            same = torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs
            if not same:
                found.append(f"{file}: {key}")
    return found


def moments(kills: int, steps: int, draw: random.Random) -> Iterator[tuple[str, int]]:
    """Where each kill falls: the stage, and the last checkpoint's step that is waited for.

    At random in the next part of the training; a tenth of them in the middle, between the stages. The very end is left
    out, where a kill might come too late.
    """
    between = max(1, kills // 10)
    others = kills - between
    for number in range(others):
        if number == others // 2:
            yield from [("distill", steps)] * between
        moment = int((number + draw.random()) / others * 1.9 * steps)
        yield STAGES[moment // steps], moment % steps // 2 * 2


def stress(folder: Path, kills: int, half: bool, seed: int = 0) -> tuple[dict[str, int], list[str]]:
    """Train whole, and in pieces.

    Returns:
        the number of kills, in all, by the stage of the newest checkpoint, between the stages and while one was
        written; and what differs in the end.
    """
    file = folder / "tiny.yaml"
    file.write_text(TINY.format(output=folder, root=ARCHIVE))
    overrides = settings(folder, kills, half)
    Training(file, "whole", overrides).finish()
    draw = random.Random(seed)
    count = {"all": 0, "distill": 0, "between": 0, "multitask": 0, "writing": 0}
    steps = config.load(file, overrides).stages.distill.steps
    for number, (stage, step) in enumerate(moments(kills, steps, draw)):
        pieces = Training(file, "pieces", overrides)
        if not pieces.kill(stage, step, draw.uniform(0, 0.3), number % 3 == 2, with_workers=number % 2 == 0):
            break
        directory = pieces.run / "checkpoints"
        names = [name for name in os.listdir(directory) if name.endswith(".pt")] if directory.is_dir() else []
        newest = max(names, default="")
        count["all"] += 1
        at_end = newest == f"distill-{steps:07d}.pt"
        count["between" if at_end else "multitask" if newest.startswith("multitask") else "distill"] += 1
        count["writing"] += pieces.writing
        print(f"\r{count}", end="", file=sys.stderr, flush=True)
    Training(file, "pieces", overrides).finish()
    return count, differences(folder / "whole", folder / "pieces")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--half", action="store_true", help="in float16")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        count, different = stress(Path(folder), options.kills, options.half, options.seed)
    print(
        f"\n{count['all']} kills, {count['distill']} in the first stage, {count['between']} between the stages and "
        f"{count['multitask']} in the second, {count['writing']} while a checkpoint was written: "
        f"{len(different)} differences"
    )
    print(*different[:10], sep="\n")
    return 1 if different or count["all"] < options.kills else 0


if __name__ == "__main__":
    sys.exit(main())

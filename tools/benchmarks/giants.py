"""A training step of LoSA beside backbones of one and four thousand million parameters, read block by block.

Each is measured in a process of its own, whose peak of memory the system tells.
"""

import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file

from benchmarks.timing import table
from sak.adaptation import LoSA
from sak.adaptation.streamed import Streamed, sketch
from sak.errors import UserError

GIANTS: Mapping[str, dict] = {
    "ViT-g": {},
    # As far as a plain transformer has been taken with images alone (arXiv 2106.04560, 2209.06794).
    "ViT-e": {"embed_dim": 1792, "depth": 56, "mlp_ratio": 15360 / 1792, "num_heads": 16},
}
MODEL, SIZE, RANK = "vit_giant_patch14_224", 224, 8
HEADER = ("backbone", "parameters, M", "file, GB", "trained, M", "backbone, s", "side network, s", "peak memory, GB")
# Bytes of each parameter that learns: weight, gradient, and AdamW's two moments.
BYTES = {"all in bfloat16": 2 + 2 + 2 + 2, "all in float32": 4 + 4 + 4 + 4}


class Step(NamedTuple):
    """
    Attributes:
        parameters, learned: numbers of them, of the backbone and of the side network.
        file: bytes of the weights on disk.
        forward, rest: wall seconds of the backbone, and of the side network with its optimizer.
        peak: bytes of memory of the process at their highest, with what is mapped of the file.
    """

    parameters: int
    learned: int
    file: int
    forward: float
    rest: float
    peak: int


def run() -> str:
    steps = {name: alone(name) for name in GIANTS}
    rows = [
        (
            name, f"{step.parameters / 1e6:.0f}", f"{step.file / 1e9:.1f}", f"{step.learned / 1e6:.2f}",
            f"{step.forward:.0f}", f"{step.rest:.1f}", f"{step.peak / 1e9:.1f}",
        )
        for name, step in steps.items()
    ]  # fmt: skip
    full = [
        (name, *(f"{count * step.parameters / 1e9:.0f}" for count in BYTES.values())) for name, step in steps.items()
    ]
    return (
        f"Second step on one image of {SIZE} × {SIZE}, a side network of rank {RANK} at every block, random weights in "
        f"bfloat16, read block by block from a file. Wall seconds; memory as the system counts it, PyTorch itself and "
        f"the mapped part of the file with it.\n\n{table(HEADER, rows)}\n\nFull fine-tuning, GB for weights, gradients "
        f"and AdamW's two moments alone, by arithmetic:\n\n{table(('backbone', *BYTES), full)}"
    )


def alone(name: str) -> Step:
    """Measured in another process.

    Raises:
        UserError: the disk has no room for the weights.
    """
    folder = Path(tempfile.mkdtemp(prefix="sak-giant-"))
    try:
        size = 2 * sum(math.prod(weight.shape) for weight in sketch(MODEL, GIANTS[name]).parameters())
        if (free := shutil.disk_usage(folder).free) < 1.1 * size:
            raise UserError(
                f"the weights of {name} take {size / 1e9:.1f} GB, but {free / 1e9:.1f} are free in {folder.parent}: "
                "make room there, or set TMPDIR to another folder"
            )
        command = [sys.executable, "-m", "benchmarks.giants", name, str(folder), str(torch.get_num_threads())]
        places = os.pathsep.join(str(Path(__file__).parents[above]) for above in (1, 2))
        environment = {**os.environ, "PYTHONPATH": places}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        return Step(**json.loads(done.stdout.splitlines()[-1]))
    finally:
        shutil.rmtree(folder)


def written(name: str, folder: Path) -> list[Path]:
    """Files of random weights in bfloat16: one for each block, and one for what is around them.

    All blocks are alike, which nothing here can tell: numbers at random would take longer than what is measured.
    """
    shapes = {key: weight.shape for key, weight in sketch(MODEL, GIANTS[name]).state_dict().items()}
    prefixes = sorted({f"{'.'.join(key.split('.')[:2])}." for key in shapes if key.startswith("blocks.")})
    first = {key: _random(shape) for key, shape in shapes.items() if key.startswith("blocks.0.")}
    files = []
    for prefix in prefixes:
        files.append(folder / f"{prefix}safetensors")
        save_file({key.replace("blocks.0.", prefix, 1): weight for key, weight in first.items()}, files[-1])
    files.append(folder / "around.safetensors")
    save_file({key: _random(shape) for key, shape in shapes.items() if not key.startswith("blocks.")}, files[-1])
    return files


def _random(shape: torch.Size) -> torch.Tensor:
    return (torch.randn(shape) / math.sqrt(shape[-1])).bfloat16()


def measured(name: str, folder: Path) -> Step:
    files = written(name, folder)
    vit = Streamed(MODEL, files, torch.bfloat16, GIANTS[name])
    losa = LoSA(vit, RANK, taps=range(len(vit.feature_info)))
    learned = list(losa.side.parameters())
    optimizer = torch.optim.AdamW(learned)
    image = torch.zeros(1, 3, SIZE, SIZE)
    for _ in range(2):  # the first one fills the system's cache of the files
        start = time.perf_counter()
        maps = vit.forward_intermediates(image, losa.taps)
        between = time.perf_counter()
        optimizer.zero_grad()
        levels = losa(image, [level.float() for level in maps])
        torch.stack([level.square().mean() for level in levels]).sum().backward()
        optimizer.step()
        end = time.perf_counter()
    parameters = sum(math.prod(weight.shape) for weight in sketch(MODEL, GIANTS[name]).parameters())
    size = sum(file.stat().st_size for file in files)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Step(parameters, sum(weight.numel() for weight in learned), size, between - start, end - between, peak)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    print(json.dumps(measured(sys.argv[1], Path(sys.argv[2]))._asdict()))

"""What a result was made with and on: versions of the libraries that compute, and the machine."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import sak

# Those whose versions can move numbers: the models' libraries, what trains them, and what reads images and labels.
LIBRARIES = (
    "torchvision", "timm", "open_clip_torch", "segment-anything", "onedl-mmsegmentation", "accelerate",
    "torchmetrics", "numpy", "scipy", "opencv-python-headless", "pillow",
)  # fmt: skip


def describe() -> dict[str, Any]:
    """As JSON. ``git`` is null where the package is installed without its repository, as is a library that is not."""
    import torch  # not for those who only count cores

    return {
        "sak": sak.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{library: _version(library) for library in LIBRARIES},
        "git": _revision(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
    }


def processor() -> str:
    """The model of the CPU, as Linux tells it; elsewhere its architecture."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _revision() -> str | None:
    command, checkout = ["git", "describe", "--always", "--dirty"], Path(__file__).parents[1]
    if not (checkout / ".git").exists():  # installed: a repository above it would be another one
        return None
    try:
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()

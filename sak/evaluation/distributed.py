"""The processes of a job: what they compute in; they wait for each other, agree when to stop, and end together.

N processes that accumulate A micro-batches compute what one process that accumulates N·A computes, to rounding: the
same images in the same micro-batches, the same random numbers, losses and gradients averaged over the micro-batches,
and batch norms that have seen one micro-batch after the other.
"""

import contextlib
import ctypes
import sys
import time
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from omegaconf import DictConfig
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sak import config as configuration
from sak.config.schema import AUTO, mixed_precision
from sak.errors import UserError

# Seconds: the first process may list a large archive, or write to a slow disk, while the others wait. A process whose
# data do not come says so itself, before the others lose patience with it.
PATIENCE = 1800

# What torch's messages have in common when another process is gone; gloo raises a plain RuntimeError.
LOST = ("connection", "gloo", "nccl", "timed out", "timeout", "socket", "aborted")

# What `precision: auto` asks of a CPU: bf16 products at so many times the rate of fp32 ones. Below it, converting
# between the two would eat the gain.
FASTER = 1.3
SECONDS = 0.1  # of each precision's products
SIDE = 512  # of their matrices

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of mallopt(3)


def build_accelerator(precision: str = "fp32", data_timeout: float = 0) -> Accelerator:
    """The device of this process, and its connection to the others.

    Args:
        precision: ``fp32``, ``bf16`` or ``fp16``.
        data_timeout: seconds that a process may wait for its data.
    """
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view")  # DDP, of the class token: one copy of D
    connect(data_timeout)
    if _on_cpu():
        keep_freed()
    if precision == "bf16" and torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # TF32 for the products that bf16 leaves out: exact enough beside it
    # accelerate keeps one precision for the life of a process, in which something else may have run before.
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != mixed_precision(precision):
        AcceleratorState._reset_state()
    return Accelerator(cpu=_on_cpu(), mixed_precision=mixed_precision(precision))


def connect(data_timeout: float = 0) -> PartialState:
    """This process among the others of its job, whatever they will compute in; `data_timeout` as above."""
    return PartialState(cpu=_on_cpu(), timeout=timedelta(seconds=max(PATIENCE, 2 * data_timeout)))


def _on_cpu() -> bool:
    return not torch.accelerator.is_available()  # said, or several processes on CPUs would not find each other


def keep_freed() -> None:
    """Let this process keep what it frees for what it needs next; where there is no glibc, nothing happens.

    A training step on a CPU makes and frees maps of tens of megabytes. By default each is a mapping of its own, whose
    pages the system hands out anew and filled with zeros (docs/BENCHMARKS.md has what that takes). The price is that
    the process stays as large as it has once been.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, -1)


def settled(config: DictConfig, kept: Path | None = None) -> DictConfig:
    """The config with bf16 or fp32 in place of ``precision: auto``, the same in all processes of a job, which is said.

    Args:
        kept: the file with the config of a run that may have begun: it goes on with its own precision.
    """
    if config.precision != AUTO:
        return config
    config = config.copy()
    if kept is not None and kept.is_file():
        config.precision = configuration.load(kept).precision
        return config
    state = connect(config.data.timeout)
    fast = [state.is_main_process and bf16_is_fast(state.device)]
    broadcast_object_list(fast)
    config.precision = "bf16" if fast[0] else "fp32"
    state.print(f"computes in {config.precision}: bf16 is {'faster' if fast[0] else 'no faster'} on this machine")
    return config


def bf16_is_fast(device: torch.device) -> bool:
    """Whether matrix products in bf16 pay here: on GPUs that have it, and on CPUs (avx512_bf16, amx) that show it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    return products_a_second(torch.bfloat16) > FASTER * products_a_second(torch.float32)


def products_a_second(dtype: torch.dtype) -> float:
    """In processor seconds, which others on the machine hardly touch."""
    one, other = torch.ones(2, SIDE, SIDE, dtype=dtype)
    one @ other  # the first one chooses its way
    done, start = 0, time.process_time()
    while (taken := time.process_time() - start) < SECONDS:
        one @ other
        done += 1
    return done / taken


@contextlib.contextmanager
def watching_processes() -> Iterator[None]:
    """Make one line of what torch raises when another process of the job has died or does not answer.

    Raises:
        UserError: that line.
    """
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        connected = distributed.is_available() and distributed.is_initialized()
        if connected and any(word in reason.lower() for word in LOST):
            raise UserError(
                "another process of this job has ended or does not answer; what it said, or how the launcher says it "
                "ended, is the reason; the same command goes on from the last checkpoint"
            ) from error
        raise


class Agreement:
    """What any process wishes, all do after the same step: one that stopped alone would leave the others waiting.

    The processes speak over their hosts, so that no device has to be waited for.
    """

    def __init__(self, processes: int):
        group = distributed.new_group(backend="gloo") if processes > 1 else None
        self._group = cast("distributed.ProcessGroup | None", group)  # of which every process is a member

    def any(self, wish: bool) -> bool:
        """Whether one of the processes wishes it; all must ask."""
        if self._group is None:
            return wish
        wishes = torch.tensor([wish], dtype=torch.int32)
        distributed.all_reduce(wishes, op=distributed.ReduceOp.MAX, group=self._group)
        return bool(wishes.item())


class RunningStatistics:
    """The batch norms' running statistics, as if the processes' micro-batches had gone through one process in turn.

    Each process k = 0 ... N-1 has moved the common r to r_k = q r + (1 - q) s_k, with q = 1 - momentum and s_k its
    micro-batch's statistics. One process would end with q^N r + Σ_k q^(N-1-k) (1 - q) s_k, which is
    q^N r + Σ_k q^(N-1-k) (r_k - q r).
    """

    def __init__(self, model: nn.Module, processes: int, rank: int):
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.momentum is not None]
        # Those of frozen parts stay as they are, and some have no statistics.
        norms = [norm for norm in norms if norm.training and norm.running_mean is not None]
        self._norms: list[Any] = norms if processes > 1 else []  # Any: nothing that is read of them is None
        self._processes, self._rank = processes, rank

    @contextlib.contextmanager
    def of_all(self) -> Iterator[None]:
        """Put a training pass of one micro-batch inside."""
        if not self._norms:
            yield
            return
        before = torch.cat(self._buffers())
        yield
        # Asked for anew: a module that is moved to a device, be it the one where it is, may get other tensors.
        buffers = self._buffers()
        kept = [1 - norm.momentum for norm in self._norms for _ in range(2)]
        keep = torch.cat([torch.full_like(buffer, share) for buffer, share in zip(buffers, kept, strict=True)])
        moved = keep ** (self._processes - 1 - self._rank) * (torch.cat(buffers) - keep * before)
        distributed.all_reduce(moved)
        together = keep**self._processes * before + moved
        for buffer, part in zip(buffers, together.split([len(buffer) for buffer in buffers]), strict=True):
            buffer.copy_(part)
        for norm in self._norms:
            norm.num_batches_tracked += self._processes - 1

    def _buffers(self) -> list[Tensor]:
        return [buffer for norm in self._norms for buffer in (norm.running_mean, norm.running_var)]

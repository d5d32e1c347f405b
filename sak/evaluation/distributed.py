"""Several processes on one training: they wait for each other, agree when to stop, and end together.

N processes that accumulate A micro-batches compute what one process that accumulates N·A computes, to rounding: the
same images in the same micro-batches, the same random numbers, losses and gradients averaged over the micro-batches,
and batch norms that have seen one micro-batch after the other.
"""

import contextlib
import warnings
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sak.config.schema import mixed_precision
from sak.errors import UserError

# Seconds: the first process may list a large archive, or write to a slow disk, while the others wait. A process whose
# data do not come says so itself, before the others lose patience with it.
PATIENCE = 1800

# What torch's messages have in common when another process is gone; gloo raises a plain RuntimeError.
LOST = ("connection", "gloo", "nccl", "timed out", "timeout", "socket", "aborted")


def build_accelerator(precision: str = "fp32", data_timeout: float = 0) -> Accelerator:
    """The device of this process, and its connection to the others.

    Args:
        precision: ``fp32``, ``bf16`` or ``fp16``.
        data_timeout: seconds that a process may wait for its data.
    """
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view")  # DDP, of the class token: one copy of D
    patience = timedelta(seconds=max(PATIENCE, 2 * data_timeout))
    return Accelerator(
        cpu=not torch.accelerator.is_available(),  # or several processes on CPUs would not find each other
        mixed_precision=mixed_precision(precision),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=patience)],
    )


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

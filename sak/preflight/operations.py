"""What computing costs in floating-point operations, counted, not timed: a multiplication and an addition are two."""

import contextlib
from collections.abc import Iterator

import torch
from omegaconf import DictConfig
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sak.bundles.build import build_tasks
from sak.config.derived import active_stages
from sak.preflight.plan import build_without_weights, sizes_alone, step_of


@contextlib.contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """Counts the operations of matrix products, convolutions and attention inside: `get_total_flops()`.

    Attention runs in its plain form there: not every torch counts the operations of the fused one on CPUs.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


def operations(config: DictConfig) -> dict[str, tuple[int, int]]:
    """{stage: operations of a step}, forward and backward: of student and teachers, and of the teachers among them.

    Nothing is read or computed.

    Raises:
        UserError: the parts of the config do not fit together.
    """
    tasks = build_tasks(config.data)
    with torch.device("meta"):
        committee, student = build_without_weights(config, tasks)
    found = {}
    with sizes_alone(student, committee):
        for stage in active_stages(config):
            objective, batch = step_of(config, stage, student, committee, tasks)
            with counting() as counter:
                objective(student, batch)[0].backward()
            student.zero_grad(set_to_none=True)
            # The counter keeps those of each module that was called, under its class's name.
            teachers = sum(counter.get_flop_counts().get(type(committee).__name__, {}).values())
            parts = config.stages[stage].accumulate
            found[stage] = counter.get_total_flops() * parts, teachers * parts
    return found

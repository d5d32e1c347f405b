"""A student whose weights, gradients and optimizer states are divided among the processes (FSDP2).

Before a part computes, its weights are gathered, and forgotten after it. The parts are the stem's blocks, the heads,
and all the rest together. Checkpoints and bundles hold whole tensors, as those of one process do.
"""

import copy

import torch
from omegaconf import DictConfig
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from sak.student import Student


def is_sharded(config: DictConfig, processes: int) -> bool:
    """Whether a run divides its student; one process has nobody to share it with."""
    return config.distributed == "fsdp" and processes > 1


def sharded(student: Student, device: torch.device) -> Student:
    """A copy of the student, of which each process keeps its share on its device. All processes must ask."""
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    copied = copy.deepcopy(student)
    for part in (*copied.stem.vit.blocks, *copied.heads.values(), copied):
        fully_shard(part, mesh=mesh)
    return copied


@torch.no_grad()
def gather(model: nn.Module, into: nn.Module) -> None:
    """Copy the weights and buffers of the sharded model into a whole student. All processes must ask."""
    whole = into.state_dict()
    for name, tensor in model.state_dict().items():
        whole[name].copy_(whole_tensor(tensor))


def whole_states(optimizer: torch.optim.Optimizer, keep: bool) -> dict | None:
    """The optimizer's ``state_dict()`` with whole tensors on the CPU, in the processes that keep it; else None.

    All processes must ask.
    """
    content = optimizer.state_dict()
    states: dict[int, dict[str, Tensor]] = {}
    for number, values in content["state"].items():
        for name, value in values.items():
            tensor = whole_tensor(value)
            if keep:
                states.setdefault(number, {})[name] = tensor.cpu()
    return {**content, "state": states} if keep else None


def load_states(optimizer: torch.optim.Optimizer, content: dict) -> None:
    """Load a ``state_dict`` of whole tensors into an optimizer of sharded weights, each process its share."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states = {}
    for number, values in content["state"].items():
        parameter = parameters[number]
        states[number] = {
            name: distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
            if value.shape == parameter.shape
            else value
            for name, value in values.items()
        }
    optimizer.load_state_dict({**content, "state": states})


def whole_tensor(tensor: Tensor) -> Tensor:
    """A tensor that the processes may share out, in all of them. All processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

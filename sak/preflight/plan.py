"""What an experiment will cost, before it starts: parameters, steps, memory and disk.

A training step is run on tensors that have sizes but no data (torch's FakeTensorMode), and the storages that are alive
at any time are counted. So a ViT-L is planned on a laptop in seconds, and no weights are read.
"""

import contextlib
import dataclasses
import weakref
from collections.abc import Iterator, Mapping

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sak.bundles.build import build_committee, build_student, build_tasks, widths_of
from sak.bundles.change import frozen_parts
from sak.config.derived import active_stages, change, distils, image_size, number_of_steps, taught_by
from sak.evaluation.distributed import settled
from sak.student import Student
from sak.tasks import Kind, Task
from sak.training import objectives
from teachers import Committee
from teachers.base import RANDOM

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """One stage on one device; sizes in bytes.

    Attributes:
        steps, images, epochs: of the whole stage; epochs may be a fraction.
        trained: parameters that the optimizer moves.
        weights: of student and teachers.
        states: AdamW's two moments.
        peak: the most that is alive within a step: weights, states, and gradients and activations at their highest.
        checkpoint: one checkpoint on disk; ``keep_last`` of a stage are kept.
    """

    steps: int
    images: int
    epochs: float
    trained: int
    weights: int
    states: int
    peak: int
    checkpoint: int

    @property
    def moving(self) -> int:
        """Gradients, activations and temporary results at their highest."""
        return self.peak - self.weights - self.states


@dataclasses.dataclass(frozen=True)
class Plan:
    """
    Attributes:
        parameters: {part of the student, or "teacher NAME": number of parameters}.
        stages: {stage: its plan}, without those of 0 steps.
    """

    parameters: dict[str, int]
    stages: dict[str, StagePlan]


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of the storages that are alive while it is entered: ``now`` and their ``peak``.

    What an operation uses inside, and what an allocator holds back, is not seen.
    """

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage, unless it is counted already, until it is freed."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return result


def plan(config: DictConfig, images: Mapping[str, int]) -> Plan:
    """
    Args:
        images: {stage: how many images it trains on}; 0 where that is not known.

    Raises:
        UserError: the parts of the config do not fit together, or a teacher's family or model does not exist.
    """
    config = settled(config)
    stages = active_stages(config)
    tasks = build_tasks(config.data) if "multitask" in stages else {}
    with torch.device("meta"):
        committee, student = build_without_weights(config, tasks)
    aligners = sum(count(student.path(name).aligners) for name in student.paths)
    parameters = {
        "backbone" if config.stages.multitask.method else "stem": count(student.stem),
        "paths": count(student.paths) - aligners,
        "aligners": aligners,
        "routers": count(student.routers),
        "heads": count(student.heads),
        **{f"teacher {name}": count(member) for name, member in committee.members.items()},
    }
    plans = {}
    with sizes_alone(student, committee):
        for stage in stages:
            steps = number_of_steps(config.stages[stage], images[stage])
            plans[stage] = plan_stage(config, stage, steps, images[stage], student, committee, tasks)
    return Plan(parameters, plans)


def build_without_weights(config: DictConfig, tasks: Mapping[str, Task]) -> tuple[Committee, Student]:
    """Teachers and student with the shapes that the config asks for; nothing is read or downloaded."""
    widths = None if change(config) else widths_of(config)
    config = config.copy()
    config.student.pretrained = False
    config.student.weights = config.student.stem_weights = None
    for spec in config.teachers.values():
        spec.weights = RANDOM
    adapts = config.stages.multitask.method is not None
    committee = build_committee(config, [] if widths is not None or adapts else None)
    student = build_student(config, tasks, committee.dims if widths is None else widths)
    if change(config):
        student.freeze(frozen_parts(config, student))
        committee = build_committee(config, taught_by(config))
    return committee, student


@contextlib.contextmanager
def sizes_alone(student: Student, committee: Committee) -> Iterator[None]:
    """Student, in training, and committee compute on tensors that have sizes and no data inside."""
    with FakeTensorMode(allow_non_fake_inputs=True):  # the libraries' own small constants are real tensors
        student.to_empty(device="cpu").train()
        committee.to_empty(device="cpu")
        yield


def plan_stage(
    config: DictConfig,
    stage: str,
    steps: int,
    images: int,
    student: Student,
    committee: Committee,
    tasks: Mapping[str, Task],
) -> StagePlan:
    """Student and committee hold no data, and all is called within the FakeTensorMode that they belong to."""
    settings = config.stages[stage]
    objective, batch = step_of(config, stage, student, committee, tasks)
    models = [student, *([committee] if distils(config, stage) else [])]
    weights, peak = step_memory(student, models, objective, batch, settings.accumulate, config.precision)
    trained = sum(p.numel() for p in student.parameters() if p.requires_grad)
    states = 2 * 4 * trained
    kept = sum(tensor.numel() * tensor.element_size() for tensor in student.state_dict().values())
    return StagePlan(
        steps=steps,
        images=steps * settings.batch_size,
        epochs=steps * settings.batch_size / images if images else 0.0,
        trained=trained,
        weights=weights,
        states=states,
        peak=peak + states,
        checkpoint=kept + states,
    )


def step_of(
    config: DictConfig, stage: str, student: Student, committee: Committee, tasks: Mapping[str, Task]
) -> tuple[objectives.Objective, dict[str, Tensor]]:
    """What a stage computes in a step, with the weights that it trains chosen, and the empty batch that it is of."""
    settings, size, teaches = config.stages[stage], image_size(config, stage), distils(config, stage)
    objectives.choose_trained_weights(student, stage, distils=teaches)
    student.set_image_size(size)
    if stage == "distill":
        objective = objectives.distillation(objectives.of_images(committee), settings.loss)
    else:
        features = objectives.of_images(committee) if teaches else None
        objective = objectives.multitask(features, tasks, settings.loss, settings.alpha)
    images = settings.batch_size // settings.accumulate
    return objective, empty_batch(images, size, tasks if stage == "multitask" else {})


def step_memory(
    student: nn.Module,
    models: list[nn.Module],
    objective: objectives.Objective,
    batch: Mapping[str, Tensor],
    accumulate: int = 1,
    precision: str = "fp32",
) -> tuple[int, int]:
    """(weights, peak) in bytes: of the models, and of all that is alive at once in a step, but the optimizer's states.

    Runs the step's micro-batches forward and backward, on real tensors or on those of FakeTensorMode.
    """
    memory = LiveMemory()
    for model in models:
        for tensor in (*model.parameters(), *model.buffers()):
            memory.add(tensor)
    weights = memory.now
    for tensor in batch.values():
        memory.add(tensor)
    with memory:
        for _ in range(min(accumulate, 2)):  # from the second on, the gradients are there from the start
            with torch.autocast("cpu", AUTOCAST.get(precision), enabled=precision in AUTOCAST):
                total, terms = objective(student, batch)
            (total / accumulate).backward()
            del total, terms
    for parameter in student.parameters():
        parameter.grad = None
    return weights, memory.peak


def empty_batch(batch_size: int, size: tuple[int, int], tasks: Mapping[str, Task]) -> dict[str, Tensor]:
    """A batch with the shapes and types of a sample of ``sak.data``."""
    batch = {"image": torch.empty(batch_size, 3, *size)}
    for name, task in tasks.items():
        classes = task.kind is Kind.CLASSES
        shape, kind = (size, torch.int64) if classes else ((task.channels, *size), torch.float32)
        batch[name] = torch.empty(batch_size, *shape, dtype=kind)
    return batch


def count(module: nn.Module) -> int:
    """The number of its parameters."""
    return sum(parameter.numel() for parameter in module.parameters())

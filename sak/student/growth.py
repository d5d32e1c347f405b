"""Teachers that come and go: a student with one more, or with one less.

A new teacher's path is a new source of every router, and shall not change what the student predicts until training
wants it to. So its weight has to start at 0, and yet to have a gradient. A softmax alone cannot give both: the weight
w = exp(l) / Σ exp has ∂w/∂l = w (1 - w), and a logit that makes w vanish makes its gradient vanish too. To let the
path itself start at 0 instead does not help: its share w is still taken from the others, and a path that has been
distilled is not 0. Here the new logit is l + log(ε + κθ), with one more weight θ >= 0, the entrance, that starts at 0:

    w = (ε + κθ) exp(l) / (Σ_old exp + (ε + κθ) exp(l)),    ∂w/∂θ at θ = 0 is κ exp(l) / Σ_old exp, up to ε.

The loss is thus linear in θ where w vanishes, as in zero-initialised gates (ReZero, arXiv 2003.04887; Flamingo, arXiv
2204.14198). With the first step l learns too: its gradient is small as θ is, which Adam's normalisation takes away. The
same normalisation lets no weight move by more than about the learning rate in a step, however steep the loss: with
κ = 1 a source would need a sum of learning rates of 1 to enter, more than many trainings have (240 steps from 1e-3 down
to 0 sum to 0.13). ε is far below the rounding of float32, and keeps the logarithm finite. The new row of the gate
starts as the mean of the old ones, so that κθ = 1 would make the source an average one. In the end log(ε + κθ) is added
to the bias (`fold`), and the router is one like all others.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import Parameter

from sak.student.adapter import AdapterPath
from sak.student.router import Router, TopKTokenRouter
from sak.student.student import Student

EPSILON = 1e-16
OPENING = 30.0  # κ: 33 steps of Adam at 1e-3 open an entrance; at 2e-5, of the paper's second stage, 1,700 of 40,000


class EnteringGate(nn.Linear):
    """The last layer of a gate while one of the sources is entering: its logit has log(ε + κθ) added, times τ.

    With noisy gating its raw scale has min(0, log(ε + κθ)) added: no draw opens a source that is not in yet.

    Args:
        linear: the layer, whose weights it takes over.
        source: the index of the entering source.
        router: whose layer it is.

    Attributes:
        entrance: θ, (1,); the optimizer has to keep it from becoming negative (`keep_entrances_positive`).
    """

    def __init__(self, linear: nn.Linear, source: int, router: Router):
        super().__init__(linear.in_features, linear.out_features, device=linear.weight.device)
        self.weight, self.bias = linear.weight, linear.bias
        self.source, self.temperature, self.noisy = source, router.temperature, router.noisy
        self.entrance = Parameter(torch.zeros_like(linear.bias[:1]))

    def whole_bias(self) -> Tensor:
        opened = torch.log(EPSILON + OPENING * self.entrance)
        added = [self.temperature * opened, opened.clamp(max=0)] if self.noisy else [self.temperature * opened]
        sources = self.out_features // len(added)
        return self.bias + torch.cat([F.pad(to_row, (self.source, sources - self.source - 1)) for to_row in added])

    def forward(self, x: Tensor) -> Tensor:
        # Not in half precision, which has no number as small as the gradient of a weight of ε.
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.to(self.weight.dtype), self.weight, self.whole_bias())


def keep_entrances_positive(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """After each of the optimizer's steps, put negative entrances of the model back to 0 (projected gradient)."""
    entrances = [part.entrance for part in model.modules() if isinstance(part, EnteringGate)]

    @torch.no_grad()
    def project(*_) -> None:
        for entrance in entrances:
            entrance.clamp_(min=0)

    if entrances:
        optimizer.register_step_post_hook(project)


@torch.no_grad()
def fold(student: Student) -> None:
    """End the entering: entrances become part of the biases, and all gates are plain ones with the same outputs."""
    for router in _routers(student):
        gate = _last(router)
        if isinstance(gate, EnteringGate):
            plain = nn.Linear(gate.in_features, gate.out_features, device=gate.weight.device)
            plain.weight, plain.bias = gate.weight, Parameter(gate.whole_bias())
            router.gate[-1] = plain


def add_teacher(student: Student, teacher: str, dims: Sequence[int], aligner: bool | None = None) -> Student:
    """The student with a new path, drawn at random, whose source is about to enter the routers.

    In eval mode its predictions are the student's, and the old sources' weights too.

    Args:
        dims: the teacher's width at each level.
        aligner: of the new path, as of ``AdapterPath``.

    Raises:
        ValueError: there is such a teacher already, the number of levels differs, or the student has no adapter paths
            or no router that a source could enter.
    """
    settings = student.settings
    if teacher in student.paths:
        raise ValueError(f"it has a teacher {teacher!r} already; its teachers: {', '.join(student.paths)}")
    if settings["paths"] != "adapter":
        raise ValueError("it has no adapter paths (student.paths is none), to which another could be added")
    if student.heads and not student.routers:
        raise ValueError(
            f"it has no routers (student.router is {settings['router']}, its sources: {', '.join(student.sources)}): "
            "another source would change all that it predicts"
        )
    if any(isinstance(router, TopKTokenRouter) for router in _routers(student)):
        raise ValueError("its routers are token_topk, which never choose a source that starts with the least weight")

    def grow(rows: Tensor) -> Tensor:
        return torch.cat([rows, rows.mean(dim=1, keepdim=True)], dim=1)

    teachers = {**dict(settings["teachers"]), teacher: list(dims)}
    grown = _rebuilt(student, teachers, {**student.aligners, teacher: aligner}, grow)
    for router in _routers(grown):
        router.gate[-1] = EnteringGate(_last(router), len(student.sources), router)
    return grown


def remove_teacher(student: Student, teacher: str) -> Student:
    """The student without a teacher's path. The other sources' router weights are renormalised to sum to 1.

    Raises:
        ValueError: there is no such teacher, or the routers keep more sources than are left.
    """
    if teacher not in student.paths:
        raise ValueError(f"it has no teacher {teacher!r}; its teachers: {', '.join(student.paths) or 'none'}")
    left = [place for place, source in enumerate(student.sources) if source != teacher]
    teachers = {name: dims for name, dims in student.settings["teachers"] if name != teacher}
    return _rebuilt(student, teachers, student.aligners, lambda rows: rows[:, left])


def replace_path(
    student: Student, teacher: str, path: AdapterPath, dims: Sequence[int], aligner: bool | None
) -> Student:
    """The student with another path in place of that of one of its teachers; routers and heads stay.

    Args:
        dims, aligner: what the path was built with.
    """
    teachers = {name: list(dims) if name == teacher else old for name, old in student.settings["teachers"]}
    replaced = _rebuilt(student, teachers, {**student.aligners, teacher: aligner}, leave_out=f"paths.{teacher}.")
    replaced.paths[teacher].load_state_dict(path.state_dict(), strict=True)
    return replaced


def realigned(student: Student, teacher: str, aligner: bool | None) -> Student:
    """The student with the aligners that ``aligner`` asks for on one path; those that it lacked are drawn at random."""
    if student.aligners[teacher] == aligner:
        return student
    teachers = dict(student.settings["teachers"])
    return _rebuilt(student, teachers, {**student.aligners, teacher: aligner})


@torch.no_grad()
def reopen(student: Student, teacher: str) -> None:
    """Let a source enter the routers again into which it was folded with θ = 0; where it has a weight all stays."""
    source, sources = student.sources.index(teacher), len(student.sources)
    for router in _routers(student):
        gate = _last(router)
        rows = gate.bias.view(-1, sources)  # of the logits, and of the noise's raw scales
        closed = math.log(EPSILON) * rows.new_tensor([router.temperature, 1.0])[: len(rows)]
        others = (rows.sum(dim=1) - rows[:, source]) / (sources - 1)
        shut = rows[:, source] - others < 0.75 * closed
        if shut[0]:
            rows[:, source] -= torch.where(shut, closed, 0.0)
            router.gate[-1] = EnteringGate(gate, source, router)


def _rebuilt(
    student: Student,
    teachers: Mapping[str, Sequence[int]],
    aligners: Mapping[str, bool | None],
    resize: Callable[[Tensor], Tensor] | None = None,
    leave_out: str | None = None,
) -> Student:
    """A student with these teachers and all weights that it shares with the old one; the others are drawn at random.

    Args:
        resize: of the gates' outputs: (1 or 2 with noise, S_old, ...) -> (1 or 2, S_new, ...).
        leave_out: what the names of those weights begin with that stay random too.
    """
    fold(student)
    chosen = {aligners[name] for name in teachers}
    aligner = chosen.pop() if len(chosen) == 1 else {name: aligners[name] for name in teachers}
    settings = {**student.settings, "teachers": teachers, "aligner": aligner if teachers else None}
    rebuilt = Student(**settings).train(student.training)
    rebuilt.activation_checkpointing = student.activation_checkpointing
    state, sources = rebuilt.state_dict(), len(student.sources)
    for key, value in student.state_dict().items():
        if key not in state or (leave_out and key.startswith(leave_out)):
            continue
        if resize and key.startswith("routers.") and value.shape != state[key].shape:
            value = resize(value.unflatten(0, (-1, sources))).flatten(0, 1)
        state[key] = value
    rebuilt.load_state_dict(state, strict=True)
    return rebuilt


def _routers(student: Student) -> list[Router]:
    return [part for part in student.routers.modules() if isinstance(part, Router)]


def _last(router: Router) -> nn.Linear:
    """The last layer of its gate."""
    return cast(nn.Linear, router.gate[-1])

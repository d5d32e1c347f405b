"""What a training step is made of: nothing that waits for the device, half precision, compiled or not."""

import contextlib
import functools
import itertools
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sak import config
from sak.bundles.build import build_student, build_tasks
from sak.config.schema import OptimConfig
from sak.distillation.standardisation import Standardiser
from sak.preflight.plan import empty_batch
from sak.tasks import TASKS, TaskDescription
from sak.training import checkpoint, optimizer, train
from sak.training.compiling import compiled
from sak.training.optimizer import Learner, adamw
from sak.training.stage import StageTraining
from sak.training.tracking import read_scalars

WAITING = ("_local_scalar_dense", "item", "nonzero", "masked_select", "equal", "is_nonzero")


class Waits(TorchDispatchMode):
    """Notes the operations for whose result the host would wait on a GPU."""

    def __init__(self):
        super().__init__()
        self.seen, self.total = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.total += 1
        name = func.overloadpacket.__name__
        if name in WAITING:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def losses(run, stage):
    return [scalar.value for scalar in read_scalars(run.events)[f"{stage}/loss/total"]]


def test_a_step_waits_for_nothing(tiny, monkeypatch):
    real, waits = StageTraining._step, Waits()

    def watched(self, *arguments):
        with waits:
            return real(self, *arguments)

    monkeypatch.setattr(StageTraining, "_step", watched)
    train.train(config.load(tiny, ["stages.multitask.evaluate_every=null"]))
    assert waits.total > 1000
    assert waits.seen == []
    with waits:
        torch.ones(1).item()
    assert waits.seen == ["_local_scalar_dense"]


# Everything that a step can be made of, beside what it is made of by default.
SAM = (
    "teachers.sam={family: sam, model: vit_b, weights: random, levels: [0,1,2,3], "
    "options: {img_size: 128, embed_dim: 32, depth: 4, num_heads: 2, window_size: 3}}"
)
SECOND = (
    "teachers.second={family: dinov2, model: vit_small_patch14_dinov2, weights: random, levels: [0,1,2,3], "
    "scales: [1, 2], options: {img_size: 96, patch_size: 16, embed_dim: 28, depth: 4, num_heads: 2}}"
)
STEPS = {
    "default": [],
    "distill": ["distill", SAM],
    "distill, more": ["distill", SECOND, "stages.distill.teacher_dropping=0.5", "stages.distill.loss=token_cos+l1"],
    "unclipped and accumulated": ["stages.multitask.optim.clip=null", "stages.multitask.accumulate=2", SAM],
    "token, phi_s, gradnorm, balance": [
        *("student.router=token", "stages.multitask.task_balance=gradnorm", "stages.multitask.balance=0.1"),
        *("stages.distill.standardise=phi_s", "stages.multitask.standardise=phi_s", "stages.multitask.loss=token_cos"),
    ],
    "token_topk, ema, uncertainty, dropping": [
        *("student.router=token_topk", "student.router_temperature=0.5", SECOND, "stages.multitask.loss=l2"),
        *("stages.distill.standardise=ema", "stages.multitask.standardise=ema"),
        *("stages.multitask.task_balance=uncertainty", "stages.multitask.teacher_dropping=0.5"),
    ],
    "recomputed": ["student.activation_checkpointing=true"],
    "sum": ["student.router=sum", "student.noisy_gating=false"],
    "many to one": ["student.paths=none"],
    "a head of mmsegmentation": ["student.head={type: mmseg.FCNHead}"],
    "an added teacher": ["student.add_teacher=second", "from={trained}", SECOND],
    "an updated teacher": ["student.update_teacher=dinov2", "from={trained}", "student.trained_beside=[routers]"],
}


def without_a_host(accelerator):
    """Of tensors that have no values: to ask for one, or to copy some to the host, is an error."""
    same = {"backward": torch.Tensor.backward, "clip_grad_norm_": torch.nn.utils.clip_grad_norm_}
    plain = {"prepare": lambda *parts: parts, "reduce": lambda values, how: values, "print": lambda *_: None}
    modes = {"autocast": contextlib.nullcontext, "no_sync": lambda model: contextlib.nullcontext()}
    one = {"num_processes": 1, "process_index": 0, "is_main_process": True, "scaler": None}
    return SimpleNamespace(device=torch.device("meta"), **same, **plain, **modes, **one)


@pytest.mark.parametrize("options", STEPS.values(), ids=STEPS)
def test_a_step_needs_no_value_of_the_device(tiny, trained, monkeypatch, options):
    """Reading one would make the host wait for the device: numbers, masks as indices, copies."""
    stage = "distill" if options[:1] == ["distill"] else "multitask"
    overrides = [option.format(trained=trained) if "{trained}" in option else option for option in options]
    settings = config.load(tiny, [option for option in overrides if option != stage])
    experiment = train.Experiment(settings, train.RunDirectory(settings))
    accelerator = experiment.accelerator = without_a_host(experiment.accelerator)
    teaching = experiment.teaching
    teaching.accelerator, teaching.committee = accelerator, teaching.committee.to("meta")
    if (kind := settings.stages[stage].standardise) != "none":
        teaching.standardisers[kind] = Standardiser(kind, teaching.committee.dims).to("meta")
    training = experiment._training(stage, None)
    monkeypatch.setattr(optimizer, "adamw", lambda model, optim: torch.optim.AdamW(model.parameters(), foreach=False))
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # which it is not made for
    training.objective = training.prepare(None)
    (batch,) = itertools.islice(training.batches.steps(0, 1), 1)
    for _ in range(2):  # in the first, optimizers make their states
        terms = training._step(batch, 0)
    assert {term.device.type for term in terms.values()} == {"meta"}
    assert len(terms) >= 6


@pytest.mark.parametrize("ask", [torch.Tensor.item, lambda x: x[x > 0], torch.Tensor.cpu, bool, torch.Tensor.nonzero])
def test_what_the_test_above_relies_on(ask):
    with pytest.raises((RuntimeError, NotImplementedError), match=r"meta"):
        ask(torch.ones((), device="meta") if ask in (torch.Tensor.item, bool) else torch.ones(3, device="meta"))


@pytest.mark.parametrize("task", TASKS)
def test_the_loss_of_no_task_needs_a_value_of_the_device(task):
    """NYUD's too."""
    built = TASKS[task](TASKS[task].default or TaskDescription(channels=40))
    batch = empty_batch(2, (32, 32), {task: built})
    output = torch.randn(2, built.channels, 32, 32, device="meta", requires_grad=True)
    built.loss(output, batch[task].to("meta")).backward()
    assert output.grad.shape == output.shape


def test_a_bad_loss_between_two_looks_reaches_no_checkpoint(tiny, monkeypatch):
    from sak.tasks import Edge

    calls = []

    def loss(self, output, label):
        calls.append(1)
        return output.mean() * (float("nan") if len(calls) == 2 else 1.0)

    monkeypatch.setattr(Edge, "loss", loss)
    settings = config.load(tiny, ["stages.multitask.log_every=100", "stages.multitask.checkpoint_every=3"])
    settings.stages.multitask.evaluate_every = None
    with pytest.raises(FloatingPointError, match="task/edge is nan at step 2 of the stage multitask"):
        train.train(settings)
    assert len(calls) == 3
    assert checkpoint.newest(train.RunDirectory(settings).checkpoints).name.startswith("distill-")


@pytest.fixture
def another_precision():
    """Accelerate keeps one precision for the life of a process, tests or not."""
    yield AcceleratorState._reset_state
    AcceleratorState._reset_state()


def test_bfloat16_through_both_stages(tiny, another_precision, pictures):
    without = ["stages.multitask.evaluate_every=null"]
    full = train.train(config.load(tiny, [*without, "name=full"]))
    another_precision()
    half = train.train(config.load(tiny, [*without, "name=half", "precision=bf16"]))
    for stage in ("distill", "multitask"):
        assert losses(half, stage) == pytest.approx(losses(full, stage), rel=0.03)
        assert losses(half, stage) != losses(full, stage)
    state = torch.load(checkpoint.newest(half.checkpoints), weights_only=True)["student"]
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float32}
    assert half.finished


def test_a_student_is_left_in_the_precision_that_it_came_in(another_precision):
    another_precision()
    student = nn.Linear(3, 2)
    x, optim = torch.rand(4, 3), OptimConfig(lr=1e-3, weight_decay=0.0, schedule="poly")
    whole = student(x)
    learner = Learner(student, optim, Accelerator(mixed_precision="bf16", cpu=True), sharded=False, state=None)
    assert not torch.equal(student(x), whole)
    learner.release()
    assert torch.equal(student(x), whole)


def test_activation_checkpointing_trains_the_same_student(tiny):
    without = ["stages.multitask.evaluate_every=null"]
    kept = train.train(config.load(tiny, [*without, "name=kept"]))
    recomputed = train.train(config.load(tiny, [*without, "name=recomputed", "student.activation_checkpointing=true"]))
    one, other = (
        torch.load(checkpoint.newest(run.checkpoints), weights_only=True)["student"] for run in (kept, recomputed)
    )
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert recomputed.metrics.read_text() == kept.metrics.read_text()


@pytest.fixture
def student(tiny):
    settings = config.load(tiny)
    torch.manual_seed(0)
    return build_student(settings, build_tasks(settings.data), {"dinov2": [24] * 4}).train()


def objective(model, batch):
    return sum(p.square().mean() for p in model(batch["image"]).predictions.values()), {}


@pytest.mark.slow
def test_compiled_is_the_same_function_and_leaves_no_trace(student, monkeypatch):
    # The compiler's front half: what it would generate code from, run as it is.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    before = {key: value.clone() for key, value in student.state_dict().items()}
    random = torch.get_rng_state()
    fast = compiled(objective, student, (2, 3, 96, 96), predicts=True)
    assert fast is not objective
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())
    assert all(p.grad is None for p in student.parameters())
    batch = {"image": torch.rand(2, 3, 96, 96)}
    torch.manual_seed(1)
    expected = objective(student, batch)[0]
    torch.manual_seed(1)
    torch.testing.assert_close(fast(student, batch)[0], expected, rtol=1e-4, atol=1e-5)


def test_where_nothing_can_be_compiled_training_goes_on(tiny, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no C++ compiler found\nand more lines")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    arguments = ["stages.distill.steps=1", "stages.multitask.steps=0"]
    with pytest.warns(UserWarning, match=r"^compile=true does not work here.*no C\+\+ compiler found$"):
        run = train.train(config.load(tiny, [*arguments, "compile=true", "name=compiled"]))
    plain = train.train(config.load(tiny, arguments))
    assert losses(run, "distill") == losses(plain, "distill")


def test_the_fused_optimizer_is_adamw(student, tiny):
    settings = config.load(tiny).stages.distill.optim
    settings.weight_decay = 0.1
    other = build_student(config.load(tiny), {}, {"dinov2": [24] * 4})
    other.load_state_dict({k: v for k, v in student.state_dict().items() if k in other.state_dict()}, strict=True)
    plain = torch.optim.AdamW(other.parameters(), lr=settings.lr, weight_decay=0.1, foreach=False)
    fused = adamw(student, settings)
    for _ in range(3):
        for name, parameter in other.named_parameters():
            parameter.grad = torch.randn_like(parameter)
            student.get_parameter(name).grad = parameter.grad.clone()
        plain.step()
        fused.step()
    for name, parameter in other.named_parameters():
        torch.testing.assert_close(student.get_parameter(name), parameter, rtol=1e-4, atol=1e-6)

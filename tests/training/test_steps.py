"""What a training step is made of: nothing that waits for the device, half precision, compiled or not."""

import functools

import pytest
import torch
from accelerate.state import AcceleratorState
from torch.utils._python_dispatch import TorchDispatchMode

from sak import config
from sak.bundles.build import build_student, build_tasks
from sak.training import checkpoint, train
from sak.training.compiling import compiled
from sak.training.optimizer import adamw
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


def test_bfloat16_through_both_stages(tiny, another_precision):
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

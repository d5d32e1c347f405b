import math
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from sak import config
from sak.config.schema import OptimConfig
from sak.student.growth import EnteringGate
from sak.training.optimizer import Learner, adamw
from sak.training.schedule import learning_rate
from sak.training.tracking import read_scalars
from sak.training.train import train


def test_cosine_with_warm_up():
    optim = OptimConfig(lr=1e-3, weight_decay=0, schedule="cosine", warmup_steps=10, warmup_lr=1e-7, min_lr=1e-5)
    rates = [learning_rate(optim, step, 110, 7) for step in range(111)]
    assert rates[0] == 1e-7
    assert rates[5] == pytest.approx((1e-7 + 1e-3) / 2, rel=1e-9)
    assert rates[10] == max(rates) == 1e-3
    assert rates[60] == pytest.approx((1e-3 + 1e-5) / 2)
    assert rates[110] == pytest.approx(1e-5)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_warm_up_counted_in_epochs():
    common = {"lr": 1e-3, "weight_decay": 0, "schedule": "cosine", "warmup_lr": 1e-7, "min_lr": 1e-5}
    in_steps, in_epochs = OptimConfig(warmup_steps=14, **common), OptimConfig(warmup_epochs=2, **common)
    for step in range(100):
        assert learning_rate(in_epochs, step, 100, 7) == learning_rate(in_steps, step, 100, 7)


def test_poly():
    optim = OptimConfig(lr=2e-5, weight_decay=0, schedule="poly", power=0.9)
    assert learning_rate(optim, 0, 40_000, 7) == 2e-5
    assert learning_rate(optim, 10_000, 40_000, 7) == pytest.approx(2e-5 * 0.75**0.9)
    assert learning_rate(optim, 40_000, 40_000, 7) == 0


def test_adamw_takes_what_is_trained():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).requires_grad_(False))
    optimizer = adamw(model, OptimConfig(lr=1e-3, weight_decay=0.01, schedule="poly"))
    assert [tuple(p.shape) for p in optimizer.param_groups[0]["params"]] == [(2, 2), (2,)]
    assert optimizer.defaults["weight_decay"] == 0.01


# --- what the optimizer really gets ----------------------------------------------------------------------------------


@pytest.fixture
def updates(monkeypatch):
    """Of all updates: the rate, the weight decay, and the norm of the gradient, as AdamW gets them."""
    real, seen = torch.optim.AdamW.step, []

    def step(self, *arguments, **named):
        (group,) = self.param_groups
        gradients = [p.grad for p in group["params"] if p.grad is not None]
        seen.append((group["lr"], group["weight_decay"], torch.nn.utils.get_total_norm(gradients).item()))
        return real(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    return seen


SHORT = ["data.tasks=[edge]", "stages.multitask.evaluate_every=null"]
# By hand, from the formulas: a warm-up over two steps, then a cosine over the four that are left; poly over four.
COSINE = [
    1e-5,
    (1e-5 + 2e-3) / 2,
    2e-3,
    *(1e-4 + 1.9e-3 * (1 + math.cos(math.pi * part / 4)) / 2 for part in (1, 2, 3)),
]
POLY = [5e-4 * (1 - step / 4) ** 0.7 for step in range(4)]
RATES = [
    "stages.distill.steps=6",
    "stages.distill.optim={lr: 2e-3, warmup_steps: 2, warmup_lr: 1e-5, min_lr: 1e-4, weight_decay: 0.3}",
    "stages.multitask.optim={lr: 5e-4, power: 0.7, weight_decay: 0.2}",
]


def test_the_optimizer_has_the_rate_of_the_schedule_at_every_step(tiny, updates):
    run = train(config.load(tiny, [*SHORT, *RATES]))
    rates, decays, _ = zip(*updates, strict=True)
    assert rates == pytest.approx([*COSINE, *POLY])
    assert decays == (0.3,) * 6 + (0.2,) * 4
    scalars = read_scalars(run.events)
    logged = [one.value for stage in ("distill", "multitask") for one in scalars[f"{stage}/learning_rate"]]
    assert logged == pytest.approx(rates)


def test_a_warm_up_in_epochs_is_of_the_training_images(tiny, updates):
    """Two images, two in a step: an epoch is a step."""
    one = ["stages.multitask.steps=0", "stages.distill.optim={lr: 2e-3, warmup_steps: 0, warmup_epochs: 2}"]
    train(config.load(tiny, [*SHORT, *one, "stages.distill.steps=4"]))
    assert [rate for rate, *_ in updates] == pytest.approx([0, 1e-3, 2e-3, 1e-3])


def test_a_resumed_run_has_the_rates_of_its_steps(tiny, updates, train_until_killed):
    own = config.load(
        tiny, [*SHORT, *RATES, "stages.distill.checkpoint_every=1", "stages.multitask.checkpoint_every=1"]
    )
    train_until_killed(own, "multitask")
    updates.clear()
    train(own)
    assert [rate for rate, *_ in updates] == pytest.approx(POLY[1:])


@pytest.mark.parametrize(("clip", "accumulate"), [(0.05, 1), (0.05, 2), (1e6, 1), (None, 1)])
def test_gradients_are_clipped_as_the_config_says(tiny, updates, clip, accumulate):
    """After all micro-batches, and to the norm of all weights together; the log has the norm from before."""
    own = [
        f"stages.multitask.optim.clip={'null' if clip is None else clip}",
        f"stages.multitask.accumulate={accumulate}",
    ]
    run = train(config.load(tiny, [*SHORT, *own]))
    norms = [norm for *_, norm in updates]
    scalars = read_scalars(run.events)
    logged = [[one.value for one in scalars[f"{stage}/gradient_norm"]] for stage in ("distill", "multitask")]
    assert norms[:3] == pytest.approx(logged[0])  # never clipped
    assert min(logged[1]) > 1
    assert norms[3:] == pytest.approx([0.05] * 4 if clip == 0.05 else logged[1], rel=1e-4)


def test_an_entrance_opens_but_does_not_become_negative():
    for gradient, left in ((1.0, 0.0), (-1.0, 0.5)):  # Adam's first step is of its rate
        gate = EnteringGate(torch.nn.Linear(2, 3), 2, SimpleNamespace(temperature=1.0, noisy=False))
        optim = OptimConfig(lr=0.5, weight_decay=0.0, schedule="poly")
        learner = Learner(gate, optim, Accelerator(), False, None)
        gate.entrance.grad = torch.tensor([gradient])
        learner.step()
        assert gate.entrance.item() == pytest.approx(left)


def test_clipping_keeps_the_gradients_direction():
    weights = torch.nn.Linear(2, 2, bias=False)
    learner = Learner(
        weights, OptimConfig(lr=0.0, weight_decay=0.0, schedule="poly", clip=1.0), Accelerator(), False, None
    )
    gradient = torch.tensor([[3.0, 0.0], [0.0, -4.0]])
    for given, left, norm in ((gradient, gradient / 5, 5.0), (gradient / 10, gradient / 10, 0.5)):
        learner.model.weight.grad = given.clone()
        assert learner.step().item() == pytest.approx(norm)
        torch.testing.assert_close(learner.model.weight.grad, left, rtol=1e-5, atol=0)

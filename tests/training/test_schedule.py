import pytest
import torch

from sak.config.schema import OptimConfig
from sak.training.optimizer import adamw
from sak.training.schedule import learning_rate


def test_cosine_with_warm_up():
    optim = OptimConfig(lr=1e-3, weight_decay=0, schedule="cosine", warmup_steps=10, warmup_lr=1e-7, min_lr=1e-5)
    rates = [learning_rate(optim, step, 110, 7) for step in range(111)]
    assert rates[0] == 1e-7
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

import pytest
import torch
from torch import nn

from sak.tasks import Kind
from sak.training.task_balance import GradNorm, Uncertainty

TASKS = {"semseg": Kind.CLASSES, "normals": Kind.VECTORS, "edge": Kind.BOUNDARY}
TWO = dict(list(TASKS.items())[:2])


def losses(*values):
    return {task: torch.tensor(value) for task, value in zip(TASKS, values, strict=False)}


def test_uncertainty_follows_kendalls_loss():
    balance = Uncertainty(TASKS, 0.1)
    s = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.Adam([s], lr=0.1)
    for step in range(5):
        values = torch.tensor([2.0 + step, 20.0, 0.1])
        total, terms = balance(losses(*values.tolist()))
        balance.step()
        factors = torch.tensor([1.0, 0.5, 1.0])  # of a classification, a regression, a classification
        kendall = (factors * torch.exp(-s) * values + s / 2).sum()
        assert total.item() == pytest.approx((kendall - s.sum() / 2).item(), rel=1e-5)
        assert terms["weight/normals"].item() == pytest.approx(0.5 * torch.exp(-s[1]).item(), rel=1e-5)
        assert not total.requires_grad  # the weights count as constants
        optimizer.zero_grad()
        kendall.backward()
        optimizer.step()
    torch.testing.assert_close(balance.learned.detach(), s.detach())


def test_uncertainty_ends_where_every_weighted_loss_is_a_half():
    balance = Uncertainty(TASKS, 0.1)
    for _ in range(300):
        balance(losses(2.0, 20.0, 0.1))
        balance.step()
    torch.testing.assert_close(
        balance.weights * torch.tensor([2.0, 20.0, 0.1]), torch.full((3,), 0.5), rtol=0.02, atol=0
    )


def test_a_step_sees_the_mean_over_micro_batches_and_processes():
    parts, whole = Uncertainty(TASKS, 0.1), Uncertainty(TASKS, 0.1)
    for values in ((1.0, 2.0, 3.0), (3.0, 4.0, 5.0)):
        parts(losses(*values))
    parts.step(lambda mean: mean + 1)  # another process saw more
    whole(losses(3.0, 4.0, 5.0))
    whole.step()
    torch.testing.assert_close(parts.learned.detach(), whole.learned.detach())


class Net(nn.Module):
    """Two tasks of scales 1 and ``scale`` behind one shared layer."""

    def __init__(self, scale):
        super().__init__()
        torch.manual_seed(0)
        self.shared, self.heads, self.scale = nn.Linear(4, 3, bias=False), nn.Linear(3, 2), scale

    def forward(self, x, targets):
        error = (self.heads(torch.tanh(self.shared(x))) - targets).square().mean(dim=0)
        return {"semseg": error[0], "normals": self.scale * error[1]}


def data(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 4, generator=generator), torch.randn(8, 2, generator=generator)


def test_gradnorm_follows_its_algorithm():
    net, reference = Net(10.0), Net(10.0)
    balance = GradNorm(list(TWO), 0.05, net.shared.weight, alpha=1.5)
    w, first = nn.Parameter(torch.ones(2)), None
    optimizer = torch.optim.Adam([w], lr=0.05)
    sgds = [torch.optim.SGD(model.parameters(), lr=0.01) for model in (net, reference)]
    for step in range(6):
        total, weights = balance(net(*data(step)))
        assert not any(weight.requires_grad for weight in weights.values())
        sgds[0].zero_grad()
        total.backward()
        balance.step()
        sgds[0].step()

        of_tasks = torch.stack(list(reference(*data(step)).values()))
        first = of_tasks.detach() if first is None else first
        sgds[1].zero_grad()
        (w.detach() * of_tasks).sum().backward(retain_graph=True)
        norms = [
            torch.autograd.grad(w[task] * of_tasks[task], reference.shared.weight, create_graph=True)[0].norm()
            for task in range(2)
        ]
        norms = torch.stack(norms)
        ratios = of_tasks.detach() / first
        wanted = (norms.mean() * (ratios / ratios.mean()) ** 1.5).detach()
        (w.grad,) = torch.autograd.grad((norms - wanted).abs().sum(), w)
        optimizer.step()
        sgds[1].step()
        w.data *= 2 / w.data.sum()
        torch.testing.assert_close(balance.weights, w.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dict(net.named_parameters()), dict(reference.named_parameters()), rtol=1e-4, atol=1e-5)
    assert balance.weights[0] > 1 > balance.weights[1]


@pytest.mark.parametrize(("alpha", "direction"), [(1.0, 1), (0.0, 0)])
def test_gradnorm_gives_more_to_a_task_that_learns_slowly(alpha, direction):
    """By hand: both gradients have the norm 0.3, and the losses are 4 and 4, then 8 and 2."""
    shared = nn.Parameter(torch.ones(2))
    balance = GradNorm(list(TWO), 0.05, shared, alpha)
    for values in ((4.0, 4.0), (8.0, 2.0)):
        balance({task: 0.3 * w + value - 0.3 for task, w, value in zip(TASKS, shared, values, strict=False)})
        balance.step()
    # r = 1.6 and 0.4; wanted are 0.48 and 0.12. Adam's second step, after a first without a gradient:
    moved = 0.05 * (0.1 / (1 - 0.9**2)) / (0.001 / (1 - 0.999**2)) ** 0.5
    assert balance.weights.tolist() == pytest.approx([1 + direction * moved, 1 - direction * moved], rel=1e-4)


def test_no_weight_of_gradnorm_falls_below_the_smallest():
    shared = nn.Parameter(torch.ones(2))
    balance = GradNorm(list(TWO), 5.0, shared)
    balance({"semseg": 3 * shared[0], "normals": 0.1 * shared[1]})
    balance.step()  # Adam's first step moves each by its rate: to -4, which is lifted to 0.001, and to 6
    assert balance.weights.tolist() == pytest.approx([2 * 0.001 / 6.001, 2 * 6 / 6.001], rel=1e-4)


def test_gradnorm_takes_the_gradient_of_all_micro_batches_together():
    def weights(cut):
        net = Net(10.0)
        balance = GradNorm(list(TWO), 0.05, net.shared.weight, alpha=0.0)
        x, targets = data(0)
        for part in torch.arange(8).chunk(cut):
            balance(net(x[part], targets[part]))
        seen = []
        balance.step(lambda values: seen.append(values) or values)
        return balance.weights, seen

    (whole, gradients), (parts, of_parts) = weights(1), weights(4)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(of_parts, gradients)


def test_gradnorm_lives_through_a_batch_without_labels():
    net = Net(0.0)  # the second task has loss 0
    balance = GradNorm(list(TWO), 0.05, net.shared.weight)
    for step in range(3):
        balance(net(*data(step)))
        balance.step()
        assert balance.weights.isfinite().all()
        assert balance.weights.sum().item() == pytest.approx(2)
    net.scale = 3.0
    balance(net(*data(3)))
    balance.step()
    assert (balance.state_dict()["first"] > 0).all()


@pytest.mark.parametrize("kind", ["uncertainty", "gradnorm"])
def test_a_state_goes_on_as_if_nothing_had_happened(kind, tmp_path):
    def build():
        net = Net(10.0)
        shared = net.shared.weight
        return net, Uncertainty(TWO, 0.05) if kind == "uncertainty" else GradNorm(list(TWO), 0.05, shared)

    (net, whole), (_, resumed) = build(), build()
    for step in range(6):
        whole(net(*data(step)))
        whole.step()
        if step == 2:
            torch.save(whole.state_dict(), tmp_path / "state.pt")
    resumed_net, _ = build()
    if kind == "gradnorm":
        resumed.shared = resumed_net.shared.weight
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for step in range(3, 6):
        resumed(resumed_net(*data(step)))
        resumed.step()
    assert torch.equal(resumed.weights, whole.weights)

import pytest
import torch

from sak.distillation.standardisation import EMA, Standardiser, hadamard


def features(count=16, width=12, seed=0):
    """Correlated channels of very different scales, away from 0."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(99))
    mixing = mixing * torch.logspace(-2, 2, width)[:, None]
    x = torch.randn(count, width, 5, 4, generator=generator)
    return torch.einsum("ij,bjhw->bihw", mixing, x) + 7


def tokens(x):
    return x.movedim(1, -1).flatten(0, 2)


@pytest.mark.parametrize("order", [1, 2, 4, 8, 12, 20, 24, 28, 36, 44, 144, 384, 768, 1280])
def test_hadamard_matrices(order):
    matrix = hadamard(order)
    assert matrix.shape == (order, order)
    torch.testing.assert_close(matrix.abs(), torch.full_like(matrix, order**-0.5))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(order, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("order", [6, 92])
def test_an_order_without_one_is_named(order):
    with pytest.raises(ValueError, match=f"no Hadamard matrix of order {order} is known"):
        hadamard(order)


def fitted():
    standardiser = Standardiser("phi_s", {"dinov2": [12, 12]})
    batches = [{"dinov2": [features(seed=seed), 3 * features(seed=seed + 50)]} for seed in range(4)]
    standardiser.fit(iter(batches))
    return standardiser, batches


def test_phi_s_gives_every_channel_mean_0_and_variance_1():
    standardiser, batches = fitted()
    for level in range(2):
        y = tokens(torch.cat([standardiser(batch)["dinov2"][level] for batch in batches]))
        torch.testing.assert_close(y.mean(dim=0), torch.zeros(12), atol=1e-4, rtol=0)
        torch.testing.assert_close(y.var(dim=0, correction=0), torch.ones(12), atol=1e-3, rtol=0)


def test_phi_s_is_a_turn_and_one_scale():
    standardiser, batches = fitted()
    x, y = (tokens(m["dinov2"][0]).double() for m in (batches[0], standardiser(batches[0])))
    every = torch.cat([tokens(batch["dinov2"][0]) for batch in batches]).double()
    scale = every.var(dim=0, correction=0).mean().sqrt()
    torch.testing.assert_close(torch.cdist(y, y), torch.cdist(x, x) / scale, rtol=1e-3, atol=1e-4)


def test_phi_s_of_parts_of_the_images_is_that_of_all():
    _, batches = fitted()
    whole, parts = Standardiser("phi_s", {"dinov2": [12, 12]}), Standardiser("phi_s", {"dinov2": [12, 12]})
    whole.fit(batches)
    # Two processes: the second has summed its share already.
    others = []
    Standardiser("phi_s", {"dinov2": [12, 12]}).fit(batches[2:], lambda values: others.append(values) or values)
    shares = iter(others)
    parts.fit(batches[:2], lambda values: values + next(shares))
    one, other = (s.teachers["dinov2"][1].mean for s in (whole, parts))
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(whole(batches[0])["dinov2"][1], parts(batches[0])["dinov2"][1], rtol=1e-3, atol=1e-3)


def test_features_that_phi_s_cannot_have_are_named():
    constant = {"sam": [torch.ones(2, 12, 2, 2)]}
    with pytest.raises(ValueError, match="the features of sam at its level 0: the features do not vary"):
        Standardiser("phi_s", {"sam": [12]}).fit([constant])
    with pytest.raises(ValueError, match="sam at its level 0: no Hadamard matrix of order 6"):
        Standardiser("phi_s", {"sam": [6]}).fit([{"sam": [torch.randn(2, 6, 2, 2)]}])


def test_ema_begins_with_the_first_batch():
    y = EMA(12)(features())
    torch.testing.assert_close(tokens(y).mean(dim=0), torch.zeros(12), atol=1e-3, rtol=0)
    torch.testing.assert_close(tokens(y).std(dim=0, correction=0), torch.ones(12), atol=1e-3, rtol=0)


def test_ema_is_the_mean_over_batches_at_first_and_moves_slowly_later():
    ema, batches = EMA(12), [features(seed=seed) for seed in range(5)]
    for x in batches:
        y = ema(x)
    mean = torch.stack([tokens(x).mean(dim=0) for x in batches]).mean(dim=0)
    std = torch.stack([tokens(x).std(dim=0, correction=0) for x in batches]).mean(dim=0)
    torch.testing.assert_close(ema.mean, mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ema.std, std, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tokens(y), (tokens(batches[-1]) - mean) / std, rtol=1e-3, atol=1e-3)
    ema.count.fill_(10**6)
    before = ema.mean.clone()
    ema(torch.full((2, 12, 3, 3), 1000.0))
    torch.testing.assert_close(ema.mean, before + 0.001 * (1000 - before), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["phi_s", "ema"])
def test_statistics_go_through_a_state(kind, tmp_path):
    dims = {"dinov2": [12], "clip": [24]}
    one, other = Standardiser(kind, dims), Standardiser(kind, dims)
    batch = {"dinov2": [features()], "clip": [features(width=24)]}
    one.fit([batch])
    one(batch)
    torch.save(one.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True), strict=True)
    again = {name: [m + 1 for m in maps] for name, maps in batch.items()}
    torch.testing.assert_close(other(again), one(again), rtol=0, atol=0)

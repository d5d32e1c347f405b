"""CKA and reconstruction from sums, against the direct formulas."""

import pytest
import torch

from sak.metrics.similarity import Moments, linear_cka, linear_reconstruction

N = 400


def moments(*features, batches=(150, 1, 249)):
    result = Moments([part.shape[1] for part in features])
    for parts in zip(*(part.split(batches) for part in features), strict=True):
        result.update(parts)
    return result


@pytest.fixture
def features():
    """Two models that share four of their directions, far from the origin."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(N, 4, generator=generator, dtype=torch.float64)
    first = shared @ torch.randn(4, 6, generator=generator, dtype=torch.float64)
    second = torch.cat([shared, torch.randn(N, 5, generator=generator, dtype=torch.float64)], dim=1)
    return first + 50, 3 * second - 20


def rotation(size):
    generator = torch.Generator().manual_seed(1)
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q


def test_cka_is_the_alignment_of_the_centred_kernels(features):
    first, second = features

    def hsic(a, b):
        centring = torch.eye(N, dtype=torch.float64) - 1 / N
        return torch.trace(a @ a.T @ centring @ b @ b.T @ centring)

    expected = hsic(first, second) / (hsic(first, first) * hsic(second, second)).sqrt()
    cka = linear_cka(moments(first, second))
    torch.testing.assert_close(cka[0, 1], expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(cka, cka.T)
    assert 0.1 < expected < 0.9


def test_cka_sees_no_rotation_scale_or_shift(features):
    first, second = features
    moved = 0.01 * first @ rotation(6) + 7
    cka = linear_cka(moments(first, moved, second))
    torch.testing.assert_close(cka[0, 1].item(), 1.0, rtol=1e-9, atol=0)
    torch.testing.assert_close(cka[0, 2], cka[1, 2], rtol=1e-9, atol=0)
    stretched = first @ torch.diag(torch.tensor([9.0, 1, 1, 1, 1, 1], dtype=torch.float64))
    assert linear_cka(moments(first, stretched))[0, 1] < 0.95


def test_cka_of_unrelated_features_is_small():
    generator = torch.Generator().manual_seed(2)
    parts = [torch.randn(20_000, 8, generator=generator) for _ in range(2)]
    assert linear_cka(moments(*parts, batches=20_000))[0, 1] < 0.01


def test_reconstruction_is_least_squares_measured_on_other_samples(features):
    first, second = features
    fitted, held = slice(0, 300), slice(300, N)
    result = linear_reconstruction(
        moments(first[fitted], second[fitted], batches=100), moments(first[held], second[held], batches=60)
    )
    ones = torch.ones(N, 1, dtype=torch.float64)
    source = torch.cat([first[:, :4], ones], dim=1)  # four of its dependent channels hold all
    solution = torch.linalg.lstsq(source[fitted], second[fitted]).solution
    residual = (source[held] @ solution - second[held]).square().sum()
    expected = 1 - residual / (second[held] - second[held].mean(0)).square().sum()
    torch.testing.assert_close(result[1, 0], expected, rtol=1e-3, atol=0)
    torch.testing.assert_close(result[0, 1].item(), 1.0, rtol=1e-4, atol=0)  # the shared directions are all of it
    assert 0.2 < expected < 0.7


def test_products_of_deviations_from_any_point(features):
    x = torch.cat(features, dim=1)
    point = x[0] + 1
    found = moments(*features).about(point)
    torch.testing.assert_close(found, (x - point).T @ (x - point) / N, rtol=1e-9, atol=1e-9)


def test_reconstruction_sees_no_scale_of_the_source(features):
    fitted, held = slice(0, 300), slice(300, N)
    results = [
        linear_reconstruction(
            *(moments(scale * features[0][half], features[1][half], batches=100) for half in (fitted, held))
        )
        for scale in (1, 1e-4)
    ]
    torch.testing.assert_close(results[0][1, 0], results[1][1, 0], rtol=1e-6, atol=0)


def test_reconstruction_sees_a_linear_map_but_not_a_memory():
    generator = torch.Generator().manual_seed(3)
    source = torch.randn(60, 40, generator=generator, dtype=torch.float64)
    noise = torch.randn(60, 40, generator=generator, dtype=torch.float64)
    image = source @ torch.randn(40, 40, generator=generator, dtype=torch.float64) + 5
    fitted, held = (moments(*(part[half] for part in (source, noise, image)), batches=50)
                    for half in (slice(0, 50), slice(50, 60)))  # fmt: skip
    result = linear_reconstruction(fitted, held)
    assert result[2, 0] > 0.999
    assert linear_reconstruction(fitted, fitted)[1, 0] > 0.7  # 40 channels fit 50 samples of noise
    assert result[1, 0] < 0


def test_single_precision_batches_far_from_the_origin_lose_nothing(features):
    exact = linear_cka(moments(*features))
    torch.testing.assert_close(linear_cka(moments(*(part.float() for part in features))), exact, rtol=1e-4, atol=1e-5)

"""How alike features are: linear CKA and linear reconstruction, from sums over samples that come in batches.

Legend: N samples (tokens), M models, D width of a model, W sum of all widths.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

RIDGE = 1e-5  # of the maps, in parts of the source's mean variance: its channels may depend on each other


class Moments:
    """Sums over samples of features and of their products, of all models at once: all that both measures need.

    Args:
        dims: D of each model.
    """

    def __init__(self, dims: Sequence[int]):
        ends = torch.tensor([0, *dims]).cumsum(0).tolist()
        self.parts = [slice(start, end) for start, end in itertools.pairwise(ends)]
        self.count = 0
        self.origin: Tensor  # of the first batch, near the mean: products of large means would swamp the covariances
        self.sum = torch.zeros(ends[-1], dtype=torch.float64)
        self.products = torch.zeros(ends[-1], ends[-1], dtype=torch.float64)

    def update(self, features: Sequence[Tensor]) -> None:
        """The same N samples as each model sees them: one (N, D) per model."""
        samples = torch.cat([part if part.dtype == torch.float64 else part.float() for part in features], dim=1)
        if not self.count:
            self.origin = samples.mean(0)
        samples = samples - self.origin
        self.count += len(samples)
        self.sum += samples.sum(0).double().cpu()
        self.products += (samples.T @ samples).double().cpu()

    @property
    def mean(self) -> Tensor:
        """(W,)"""
        return self.origin.double().cpu() + self.sum / self.count

    def about(self, point: Tensor) -> Tensor:
        """(W, W) mean product of deviations from `point` (W,)."""
        shift = point - self.origin.double().cpu()
        mean = self.sum / self.count
        return (
            self.products / self.count - torch.outer(mean, shift) - torch.outer(shift, mean) + torch.outer(shift, shift)
        )

    @property
    def covariance(self) -> Tensor:
        """(W, W)"""
        return self.about(self.mean)


def linear_cka(moments: Moments) -> Tensor:
    """Linear centred kernel alignment of every two models (Kornblith et al., arXiv 1905.00414, eq. 3): (M, M).

    |cov(a, b)|² / (|cov(a, a)| |cov(b, b)|) in Frobenius norms: 1 for features equal up to a rotation, a scale and a
    shift, near 0 for unrelated ones.
    """
    covariance, parts = moments.covariance, moments.parts
    cross = torch.stack([torch.stack([covariance[a, b].square().sum() for b in parts]) for a in parts])
    own = cross.diagonal().sqrt()
    return cross / own.outer(own)


def linear_reconstruction(fitted: Moments, held: Moments) -> Tensor:
    """How much of each model's features (rows) a linear map of each other's (columns) explains: (M, M).

    R² = 1 − residual / variance on held-out samples, summed over channels, so that a rotation of the target changes
    nothing; 1 on what is a linear map, about 0 (or less) on what is not. The measure that S2 (arXiv 2403.13043,
    section 4.2) takes for what a small model at several scales knows of a large one.

    Args:
        fitted: the samples on which maps, with their intercepts, are fitted by least squares.
        held: others, on which they are measured.
    """
    train, test = fitted.covariance, held.about(fitted.mean)
    variance = held.covariance.diagonal()
    result = torch.empty(len(fitted.parts), len(fitted.parts), dtype=torch.float64)
    for column, source in enumerate(fitted.parts):
        own = train[source, source]
        own = own + RIDGE * own.diagonal().mean() * torch.eye(len(own), dtype=own.dtype)
        maps = torch.cholesky_solve(train[source], torch.linalg.cholesky(own))  # (D, W): to all targets at once
        explained = (maps * test[source]).sum(0)
        spent = (maps * (test[source, source] @ maps)).sum(0)
        residual = test.diagonal() - 2 * explained + spent
        for row, target in enumerate(fitted.parts):
            result[row, column] = 1 - residual[target].sum() / variance[target].sum()
    return result

"""Standardised teacher features: the loss then weighs all channels, levels and teachers alike, whatever their scales.

The student learns the standardised features, so that a run must keep the statistics it began with.

Shapes: B batch, D width of a teacher's level, h,w its grid.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, distributed, nn

Features = Mapping[str, Sequence[Tensor]]  # {teacher: [per level (B, D, h, w)]}
MOMENTUM = 0.001  # the smallest, of a long run
EPSILON = 1e-6


class PhiS(nn.Module):
    """y = H Uᵀ (x - μ) / α of one teacher at one level, with α = sqrt(mean of λ) (PHI-S, arXiv 2410.01680).

    μ, U and λ are mean, eigenvectors and eigenvalues of the tokens' covariance, H is an orthonormal Hadamard matrix:
    turned by it, all principal components have their part in every channel, and every channel has variance 1; one α for
    all of them leaves distances and angles as they are.
    """

    mean: Tensor
    turn: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("turn", torch.eye(width))  # H Uᵀ / α

    def fit(self, mean: Tensor, covariance: Tensor) -> None:
        """
        Args:
            mean, covariance: (D,) and (D, D) of the tokens, in float64 on the CPU.

        Raises:
            ValueError: the features do not vary, or no Hadamard matrix of their width is known.
        """
        values, vectors = torch.linalg.eigh(covariance)
        scale = values.clamp(min=0).mean().sqrt()
        if not scale > 0:
            raise ValueError("the features do not vary")
        self.mean.copy_(mean)
        self.turn.copy_(hadamard(len(mean)) @ vectors.T / scale)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) -> the same shape, float32."""
        with torch.autocast(x.device.type, enabled=False):
            return torch.einsum("ij,bjhw->bihw", self.turn, x.float() - self.mean[:, None, None])


class EMA(nn.Module):
    """y = (x - μ) / (σ + 1e-6) per channel of one teacher at one level, with running μ and σ of the training batches.

    Each batch moves them by momentum · (its own - the running), before it is standardised itself (UNIC, arXiv
    2408.05088; Theia, arXiv 2407.20179, takes the statistics of the whole data set). UNIC lowers the momentum from 1 to
    0.001 along a cosine over the stage; here it is 1/n at the n-th batch, which makes the plain mean over batches, and
    not below 0.001.

    Processes that train together have seen each other's batches, one after the other by their rank. In eval mode the
    running ones are kept.
    """

    mean: Tensor
    std: Tensor
    count: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) -> the same shape, float32."""
        x = x.float()
        if not self.training:
            return self._standardised(x)
        own = torch.stack([x.mean(dim=(0, 2, 3)), x.std(dim=(0, 2, 3), correction=0)])
        every, rank = [own], 0
        if distributed.is_available() and distributed.is_initialized():
            every, rank = [torch.empty_like(own) for _ in range(distributed.get_world_size())], distributed.get_rank()
            distributed.all_gather(every, own)
        for number, (mean, std) in enumerate(every):
            self.count += 1
            momentum = (1 / self.count).clamp(min=MOMENTUM)
            self.mean.lerp_(mean, momentum)
            self.std.lerp_(std, momentum)
            if number == rank:
                y = self._standardised(x)
        return y

    def _standardised(self, x: Tensor) -> Tensor:
        return (x - self.mean[:, None, None]) / (self.std + EPSILON)[:, None, None]


KINDS = {"phi_s": PhiS, "ema": EMA}


class Standardiser(nn.Module):
    """One kind of standardisation for a committee; its ``state_dict`` holds the statistics.

    Args:
        kind: a name of ``KINDS``.
        dims: {teacher: its width at each level}.
    """

    def __init__(self, kind: str, dims: Mapping[str, Sequence[int]]):
        super().__init__()
        self.kind = kind
        self.teachers = nn.ModuleDict(
            {name: nn.ModuleList(KINDS[kind](width) for width in widths) for name, widths in dims.items()}
        )

    def forward(self, features: Features) -> dict[str, list[Tensor]]:
        """{teacher: [per level (B, D, h, w)]} -> the same, standardised."""
        return {
            name: [level(x) for level, x in zip(cast(nn.ModuleList, self.teachers[name]), maps, strict=True)]
            for name, maps in features.items()
        }

    @torch.no_grad()
    def fit(self, batches: Iterable[Features], add: Callable[[Tensor], Tensor] = lambda values: values) -> None:
        """Take the statistics of PHI-S from these batches' tokens; nothing to do for EMA, which has its own as it goes.

        Args:
            add: sums a tensor over the processes, each of which has batches of its own.

        Raises:
            ValueError: as of ``PhiS.fit``; the message names teacher and level.
        """
        if self.kind == "ema":
            return
        # Per level the tokens x with a 1 behind them: the sum of their outer products has count, sums and products.
        sums: dict[tuple[str, int], Tensor] = {}
        for features in batches:
            for name, maps in features.items():
                for level, x in enumerate(maps):
                    tokens = x.movedim(1, -1).flatten(0, 2).double()
                    tokens = torch.cat([tokens, torch.ones_like(tokens[:, :1])], dim=1)
                    sums[name, level] = sums.get((name, level), 0) + tokens.T @ tokens
        for (name, level), products in sums.items():
            products = add(products).cpu()
            count, total = products[-1, -1], products[-1, :-1]
            mean = total / count
            try:
                phi_s = cast(PhiS, self.teachers.get_submodule(f"{name}.{level}"))
                phi_s.fit(mean, products[:-1, :-1] / count - torch.outer(mean, mean))
            except ValueError as error:
                raise ValueError(f"the features of {name} at its level {level}: {error}") from None


@functools.cache
def hadamard(order: int) -> Tensor:
    """An orthogonal matrix (order, order) in float64 with entries ±1/sqrt(order).

    Made by doubling (Sylvester) from one of the orders 1, q + 1 (Paley I) or 2 (q + 1) (Paley II), with q a prime of
    the right residue: all the usual widths of transformers have one.

    Raises:
        ValueError: these constructions have none of this order.
    """
    signs = _signs(order)
    if signs is None:
        raise ValueError(f"no Hadamard matrix of order {order} is known here, and so PHI-S cannot be had")
    return signs.double() / math.sqrt(order)


def _signs(order: int) -> Tensor | None:
    if order == 1:
        return torch.ones(1, 1)
    if order % 2 == 0 and (half := _signs(order // 2)) is not None:
        return torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), half)
    if order % 4:
        return None
    if _is_prime(order - 1):
        return _conference(order - 1, -1.0) + torch.eye(order)
    q = order // 2 - 1
    if q % 4 == 1 and _is_prime(q):
        both, apart = torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.tensor([[1.0, -1.0], [-1.0, -1.0]])
        return torch.kron(_conference(q, 1.0), both) + torch.kron(torch.eye(q + 1), apart)
    return None


def _conference(q: int, sign: float) -> Tensor:
    """(q + 1, q + 1): 0 on the diagonal, a border of 1 and ``sign``, and inside whether i - j is a square modulo q."""
    squares = {number * number % q for number in range(1, q)}
    character = torch.tensor([0.0, *(1.0 if number in squares else -1.0 for number in range(1, q))])
    numbers = torch.arange(q)
    matrix = torch.zeros(q + 1, q + 1)
    matrix[0, 1:], matrix[1:, 0] = 1.0, sign
    matrix[1:, 1:] = character[(numbers[:, None] - numbers) % q]
    return matrix


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % factor for factor in range(2, math.isqrt(number) + 1))

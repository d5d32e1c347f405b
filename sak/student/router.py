"""Routers that mix the stem and the teachers' paths for one task at one level.

Learned ones weigh the sources by what the stem sees, the fixed ones add or average them; all are called alike.

Shapes: B batch, N patch tokens, D width, T teachers, S = 1 + T sources (the stem first).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MIN_NOISE = 0.01


class Router(nn.Module):
    """A gate that reads the stem's patch tokens, and the weighted sum of the sources.

    Each token's logits are W_2 GELU(LayerNorm(W_1 x)), and noisy gating has raw as a second output of the same layers;
    where a router is of the whole image, both are averaged over the tokens first. While training, every token's logits
    get ε · (softplus(raw) + 0.01) added, with ε ~ N(0, 1) drawn per token and source (SAK, arXiv 2410.14633; after
    Shazeer et al. 2017, arXiv 1701.06538, eq. 4). The weights are softmax(logits / τ).

    Args:
        width: D.
        sources: S.
        noisy: whether there is noise while training.
        temperature: τ, by which logits are divided before the softmax: below 1 weights are sharper, above 1 more even.

    Raises:
        ValueError: the temperature is not positive.
    """

    of_image: bool  # else every token has a gate of its own

    def __init__(self, width: int, sources: int, noisy: bool = True, temperature: float = 1.0):
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"router_temperature is {temperature}, but must be positive")
        self.noisy, self.temperature = noisy, temperature
        self.gate = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.LayerNorm(width // 2),
            nn.GELU(),
            nn.Linear(width // 2, sources * (2 if noisy else 1)),
        )

    def logits(self, x: Tensor, knocked_out: Sequence[int] = ()) -> Tensor:
        """Stem patch tokens (B, N, D) -> (B, N, S), or (B, 1, S) where all tokens of an image share theirs.

        With noise while training; -inf for knocked-out sources.
        """
        logits = self.gate(x)
        # Not in bf16, whose 8 bits are few for weights that are learnt.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.of_image:
            logits = logits.mean(dim=1, keepdim=True)  # before the noise, which it would shrink by √N
        if self.noisy:
            logits, raw = logits.chunk(2, dim=-1)
            if self.training:
                noise = torch.randn(*x.shape[:2], logits.shape[-1], dtype=logits.dtype, device=logits.device)
                logits = logits + noise * (F.softplus(raw) + MIN_NOISE)
        if knocked_out:
            # Before the softmax: the others' weights are renormalised, however small all of them were.
            logits = logits.index_fill(-1, torch.tensor(knocked_out, device=logits.device), -torch.inf)
        return logits

    def weights(self, x: Tensor, knocked_out: Sequence[int] = ()) -> Tensor:
        """Stem patch tokens (B, N, D) -> weights shaped as `logits`, of sum 1 over S, 0 for knocked-out sources."""
        return (self.logits(x, knocked_out) / self.temperature).softmax(dim=-1)

    def forward(self, x: Tensor, paths: Sequence[Tensor], knocked_out: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        """Stem patch tokens (B, N, D) and T path features (B, N, D) -> mixed (B, N, D) = Σ_s weights_s · source_s.

        Args:
            knocked_out: the sources that are left out of the mixture; 0 is the stem, which the gate still reads.

        Returns:
            mixed, and the weights of each token (B, N, S), or of the image (B, S): the mean over its tokens, which
            differ by their noise alone.
        """
        weights = self.weights(x, knocked_out)
        # A running sum: stacking the sources would copy all of them for every task and level.
        mixed = weights[..., 0, None] * x
        for source, features in enumerate(paths, start=1):
            mixed = mixed + weights[..., source, None] * features
        dtype = next(self.gate.parameters()).dtype
        mixed = mixed.to(dtype)  # half precision again, where the whole student has been made so
        return mixed, weights.mean(dim=1) if self.of_image else weights


class MixtureOfRepresentations(Router):
    """One gate for the image (SAK, arXiv 2410.14633: MoR)."""

    of_image = True


class TokenRouter(Router):
    """Every token has its own gate: the dense one of Shazeer et al. 2017 (eq. 2)."""

    of_image = False


class TopKTokenRouter(TokenRouter):
    """Every token keeps its k sources of the largest (noisy) logits, the rest weighs 0: softmax(KeepTopK(logits) / τ).

    Source: Shazeer et al. 2017 (arXiv 1701.06538), eq. 3 to 5. All sources are computed all the same, as the other
    tasks and levels need them: it saves no time.

    Raises:
        ValueError: k is not between 2 and S. Alone, a source would weigh 1, and the gate would get no gradient.
    """

    def __init__(self, width: int, sources: int, noisy: bool = True, temperature: float = 1.0, top_k: int = 2):
        super().__init__(width, sources, noisy, temperature)
        if not 2 <= top_k <= sources:
            raise ValueError(f"router_top_k is {top_k}, but must be between 2 and the number of sources, {sources}")
        self.top_k = top_k

    def weights(self, x: Tensor, knocked_out: Sequence[int] = ()) -> Tensor:
        logits = self.logits(x, knocked_out)
        largest, places = logits.topk(self.top_k, dim=-1)
        kept = (largest / self.temperature).softmax(dim=-1)
        return torch.zeros_like(logits, dtype=kept.dtype).scatter(-1, places, kept)


def plain_sum(x: Tensor, paths: Sequence[Tensor], knocked_out: Sequence[int] = ()) -> tuple[Tensor, None]:
    """The sum of the sources that are not knocked out, without weights; arguments as of ``Router.forward``."""
    first, *others = _left(x, paths, knocked_out)
    return sum(others, first), None


def plain_mean(x: Tensor, paths: Sequence[Tensor], knocked_out: Sequence[int] = ()) -> tuple[Tensor, None]:
    """Their mean: what a router would give that weighs all of them alike."""
    mixed, _ = plain_sum(x, paths, knocked_out)
    return mixed / len(_left(x, paths, knocked_out)), None


def _left(x: Tensor, paths: Sequence[Tensor], knocked_out: Sequence[int]) -> list[Tensor]:
    return [source for index, source in enumerate((x, *paths)) if index not in knocked_out]


def importance_cv2(weights: Tensor) -> Tensor:
    """CV² of the sources' importance: the balance term of one router (Shazeer et al. 2017, arXiv 1701.06538, eq. 6, 7).

    The importance of a source is the sum of its weights over the batch, CV² its variance over the sources by the
    square of its mean: 0 where all sources weigh alike, S - 1 where one has all the weight.

    Args:
        weights: (B, S) of a batch's images.
    """
    importance = weights.float().sum(dim=0)
    return importance.var(correction=0) / importance.mean() ** 2


LEARNED = {"mor": MixtureOfRepresentations, "token": TokenRouter, "token_topk": TopKTokenRouter}
FIXED = {"equal": plain_mean, "sum": plain_sum}


def build_router(
    name: str, width: int, sources: int, noisy: bool = True, temperature: float = 1.0, top_k: int = 2
) -> Router:
    """The learned router of this name; ``top_k`` is for ``token_topk`` alone."""
    more = {"top_k": top_k} if name == "token_topk" else {}
    return LEARNED[name](width, sources, noisy, temperature, **more)

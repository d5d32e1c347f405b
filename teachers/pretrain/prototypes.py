"""What the self-distillation compares: distributions of tokens over prototypes.

Legend: B tokens, D width, K prototypes, Q tokens in the queue.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEACHER_TEMPERATURE, STUDENT_TEMPERATURE = 0.05, 0.1
CONTRAST_TEMPERATURE = 0.1


class Head(nn.Module):
    """Projection of tokens (B,D) onto K prototypes of unit length: cosines (B,K)."""

    def __init__(self, width: int, prototypes: int, hidden: int = 384, bottleneck: int = 64):
        super().__init__()
        self.mlp = nn.Sequential(
            *(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()),
            nn.Linear(hidden, bottleneck),
        )
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck))

    def embed(self, tokens: Tensor) -> Tensor:
        """The projections (B,E), of unit length, which are compared with the prototypes."""
        with torch.autocast(tokens.device.type, enabled=False):
            return F.normalize(self.mlp(tokens.float()), dim=-1)

    def compare(self, embedded: Tensor) -> Tensor:
        """Cosines (B,K) of projections (B,E) and prototypes."""
        with torch.autocast(embedded.device.type, enabled=False):
            return embedded @ F.normalize(self.prototypes, dim=-1).T

    def forward(self, tokens: Tensor) -> Tensor:
        return self.compare(self.embed(tokens))


class Queue(nn.Module):
    """The newest tokens' logits (Q,K): a batch alone has too few class tokens to share the prototypes among."""

    logits: Tensor
    filled: Tensor

    def __init__(self, length: int, prototypes: int):
        super().__init__()
        self.register_buffer("logits", torch.zeros(length, prototypes))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def push(self, logits: Tensor) -> Tensor:
        """Add logits (B,K), the oldest go; returns all that are there now, the new ones first."""
        kept = int(self.filled.clamp(max=max(0, len(self.logits) - len(logits))))
        together = torch.cat([logits, self.logits[:kept]])
        self.filled.fill_(min(len(together), len(self.logits)))
        self.logits[: len(together)] = together[: len(self.logits)]
        return together


def balanced(logits: Tensor, rounds: int = 3) -> Tensor:
    """Teacher logits (B,K) -> distributions (B,K) that use all prototypes alike over the tokens.

    Sinkhorn-Knopp (Caron et al., arXiv 2006.09882), the centering of DINOv2.
    """
    q = ((logits - logits.max()) / TEACHER_TEMPERATURE).exp()
    for _ in range(rounds):
        q = q / q.sum(0, keepdim=True)
        q = q / q.sum(1, keepdim=True)
    return q


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of student logits (B,K) at the student's temperature with target distributions (B,K)."""
    return -(targets * (logits / STUDENT_TEMPERATURE).log_softmax(-1)).sum(-1).mean()


def contrast(queries: Tensor, keys: Tensor) -> Tensor:
    """InfoNCE (van den Oord et al., arXiv 1807.03748): each query (B,E) has to tell its own key (B,E) from those of the
    other scenes; both of unit length."""
    return F.cross_entropy(queries @ keys.T / CONTRAST_TEMPERATURE, torch.arange(len(keys), device=keys.device))


def spread(tokens: Tensor) -> Tensor:
    """KoLeo (Sablayrolles et al., arXiv 1806.03198) of class tokens (B,D): each keeps away from its nearest other."""
    tokens = F.normalize(tokens, dim=-1)
    with torch.no_grad():
        nearest = (tokens @ tokens.T - 2 * torch.eye(len(tokens), device=tokens.device)).argmax(1)
    return -((tokens - tokens[nearest]).norm(dim=-1) + 1e-6).log().mean()

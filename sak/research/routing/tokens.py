"""What per-token routers do beyond their mean over an image: how much of the choice lies between tokens.

Legend: B images, S sources, h, w token grid.
"""

from torch import Tensor, nn

from sak.research.routing.statistics import entropy
from sak.student import StudentOutput


class TokenRecord(nn.Module):
    """A student that is asked as ever, and the entropies of all token weights that it has given since.

    Tokens in the padding count, as they do in the router's mean.
    """

    def __init__(self, student: nn.Module):
        super().__init__()
        self.student = student
        self._sums: dict[tuple[str, int], tuple[Tensor, float, int]] = {}  # of p, of H(p), of tokens

    def forward(self, images: Tensor) -> StudentOutput:
        """RGB images (B,3,H,W) in [0,1] -> StudentOutput."""
        output = self.student(images)
        for task, levels in output.token_routing.items():
            for level, weights in enumerate(levels):
                tokens = weights.flatten(2).transpose(1, 2).flatten(0, 1).double().cpu()
                total, entropies, count = self._sums.get((task, level), (0, 0.0, 0))
                self._sums[task, level] = (
                    total + tokens.sum(0),
                    entropies + entropy(tokens).sum().item(),
                    count + len(tokens),
                )
        return output

    def information(self, task: str, level: int) -> float | None:
        """I(token; source) = H(mean p) − mean H(p) over all tokens of all images, in bits; None of an image's router.

        What image and place together say about the choice: at least what the image says.
        """
        if (task, level) not in self._sums:
            return None
        total, entropies, count = self._sums[task, level]
        return max(0.0, entropy(total / count).item() - entropies / count)

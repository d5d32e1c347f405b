"""Numbers on the weights of one router: how they are spread over sources and images, and what they depend on.

Legend: N images, S sources, C classes. A weight vector p (S,) sums to 1 and is read as a choice among the sources;
H(p) = −Σ_s p_s log2 p_s is its entropy in bits, from 0 (one source) to log2 S (all alike).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SHUFFLES = 200  # of the classes, for what their information is by chance

SAME_FOR_ALL = 0.01  # a router whose weights all have a smaller spread treats all images alike
TAKES_ALL = 0.9  # a source with a larger mean weight leaves the others next to nothing
DEAD = 0.05  # a source that no image gives a larger weight has no part in the mixture


@dataclass
class RouterStatistics:
    """One router, a task's at a level, over N images.

    Attributes:
        mean: (S,) over the images.
        spread: (S,) the standard deviation over the images.
        smallest, largest: (S,) over the images.
        leads: (S,) the share of images that give the source more than any other.
        entropy: the mean over images of H(p): how undivided the choice for one image is.
        entropy_of_mean: H of the mean weights: how undivided all choices together are.
    """

    mean: Tensor
    spread: Tensor
    smallest: Tensor
    largest: Tensor
    leads: Tensor
    entropy: float
    entropy_of_mean: float

    @property
    def image_information(self) -> float:
        """I(image; source) = H(mean p) − mean H(p), in bits: what the image says about the choice.

        0 where all images get the same weights; log2 S where each gets one source, and all sources equally often.
        """
        return max(0.0, self.entropy_of_mean - self.entropy)  # below 0 by rounding alone


def entropy(weights: Tensor) -> Tensor:
    """Weights (..., S) -> H in bits (...); 0 log 0 is 0."""
    weights = weights.double()
    return -torch.special.xlogy(weights, weights).sum(-1) / torch.log(torch.tensor(2.0, dtype=torch.float64))


def router_statistics(weights: Tensor) -> RouterStatistics:
    """Weights (N, S) -> RouterStatistics."""
    weights = weights.double()
    mean, sources = weights.mean(0), weights.shape[1]
    return RouterStatistics(
        mean=mean,
        spread=weights.std(0, correction=0),
        smallest=weights.amin(0),
        largest=weights.amax(0),
        leads=torch.bincount(weights.argmax(1), minlength=sources) / len(weights),
        entropy=entropy(weights).mean().item(),
        entropy_of_mean=entropy(mean).item(),
    )


def class_information(weights: Tensor, classes: Tensor) -> float:
    """I(class; source) = H(mean p) − Σ_c share(c) H(mean p of the images of c), in bits.

    What the class of the image says about the choice: at most what the image says.

    Args:
        weights: (N, S).
        classes: (N,) integers.
    """
    weights = weights.double()
    _, number = classes.unique(return_inverse=True)
    counts = torch.bincount(number)
    means = torch.zeros(len(counts), weights.shape[1], dtype=torch.float64).index_add(0, number, weights)
    within = (counts * entropy(means / counts[:, None])).sum() / len(weights)
    return max(0.0, (entropy(weights.mean(0)) - within).item())


def information_by_chance(weights: Tensor, classes: Tensor, seed: int = 0) -> float:
    """The mean of `class_information` over shuffled classes: few images of many classes seem to say something too."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = (classes[torch.randperm(len(classes), generator=generator)] for _ in range(SHUFFLES))
    return sum(class_information(weights, order) for order in shuffled) / SHUFFLES


def warnings(routers: Mapping[str, Mapping[int, RouterStatistics]], sources: Sequence[str]) -> list[str]:
    """A sentence for each router that has collapsed, and for each source that is dead.

    Args:
        routers: {task: {block: its router's statistics}}.
    """
    found: list[str] = []
    dead: dict[str, list[str]] = {source: [] for source in sources}
    for task, levels in routers.items():
        for block, router in levels.items():
            place = f"{task}, block {block}"
            if (spread := router.spread.max().item()) < SAME_FOR_ALL:
                found.append(
                    f"{place}: collapsed: all images get nearly the same weights "
                    f"(no weight's spread is above {spread:.4f}; warned of below {SAME_FOR_ALL})"
                )
            if (share := router.mean.max().item()) > TAKES_ALL:
                found.append(
                    f"{place}: collapsed: {sources[int(router.mean.argmax())]} takes {share:.1%} of the weight on "
                    f"average (warned of above {TAKES_ALL:.0%})"
                )
            for source, largest in zip(sources, router.largest.tolist(), strict=True):
                if largest < DEAD:
                    dead[source].append(f"{place} ({largest:.3f})")
    total = sum(map(len, routers.values()))
    for source, places in dead.items():
        if places:
            found.append(
                f"{source} is dead in {len(places)} of {total} routers, where no image gives it a weight of {DEAD} "
                f"(its largest in brackets): {'; '.join(places)}"
            )
    return found

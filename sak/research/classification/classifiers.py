"""Two evaluates of frozen features, neither of which has anything to tune by hand: neighbours, and a linear map.

Legend: N images to learn from, M to evaluate, D width, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS, TEMPERATURE = 20, 0.07  # of Wu et al., arXiv 1805.01978, as DINO and its successors are evaluated
CHUNK = 1024  # images whose neighbours are sought at once
PENALTIES = tuple(10.0**power for power in range(-6, 2))  # of the squared weights, on features of variance 1
HELD_OUT = 5  # every so manieth image of a class chooses the penalty
ITERATIONS = 200  # of L-BFGS, at most


def nearest_neighbours(features: Tensor, labels: Tensor, unknown: Tensor, classes: int) -> Tensor:
    """The classes (M,) that the nearest neighbours vote for, each with exp(cosine / temperature).

    Args:
        features: (N, D), of the `labels` (N,).
        unknown: (M, D).
    """
    known, found = F.normalize(features.float(), dim=1), []
    for part in F.normalize(unknown.float(), dim=1).split(CHUNK):
        cosines, nearest = (part @ known.T).topk(min(NEIGHBOURS, len(known)), dim=1)
        votes = torch.zeros(len(part), classes).scatter_add_(1, labels[nearest], (cosines / TEMPERATURE).exp())
        found.append(votes.argmax(1))
    return torch.cat(found)


def linear_probe(features: Tensor, labels: Tensor, unknown: Tensor, classes: int) -> Tensor:
    """The classes (M,) of a multinomial logistic regression on features that are standardised channel by channel.

    The penalty of its weights is the one that is best on every fifth image of each class, after learning from the
    others; then it learns from all.
    """
    mean, std = features.mean(0), features.std(0, correction=0).clamp_min(1e-6)
    features, unknown = (features - mean) / std, (unknown - mean) / std
    held = held_out(labels)
    chosen = PENALTIES[0]
    if held.any():
        right = {}
        for penalty in PENALTIES:
            weights = fit(features[~held], labels[~held], classes, penalty)
            right[penalty] = (predict(weights, features[held]) == labels[held]).sum().item()
        chosen = max(right, key=lambda penalty: (right[penalty], penalty))  # of several that are as good the strongest
    return predict(fit(features, labels, classes, chosen), unknown)


def held_out(labels: Tensor) -> Tensor:
    """(N,) booleans: of each class every fifth image, none of a class of fewer."""
    order = torch.zeros_like(labels)
    for label in labels.unique():
        order[labels == label] = torch.arange(1, int((labels == label).sum()) + 1)
    return order % HELD_OUT == 0


def fit(features: Tensor, labels: Tensor, classes: int, penalty: float) -> Tensor:
    """(D + 1, C) weights, the intercept last: the minimum of mean cross-entropy + penalty · |weights|² / 2."""
    weights = torch.zeros(features.shape[1] + 1, classes, dtype=features.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = F.cross_entropy(scores(weights, features), labels) + penalty * weights[:-1].square().sum() / 2
        total.backward()
        return total

    optimizer.step(loss)
    return weights.detach()


def scores(weights: Tensor, features: Tensor) -> Tensor:
    """(N, C)"""
    return features @ weights[:-1] + weights[-1]


def predict(weights: Tensor, features: Tensor) -> Tensor:
    return scores(weights, features).argmax(1)

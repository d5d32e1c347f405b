"""Exact one-to-one matching of boundary pixels: how many pairs at most lie within a distance of each other.

The number of pairs is a maximum-cardinality bipartite matching. It is found for all thresholds of an image at once:
greedily, nearest pairs first, which finds all but about one percent; then along augmenting paths, searched from all
unmatched pixels at once (Azad, Buluç and Pothen, TPDS 2017), which finds the rest. Both are deterministic, and the
number does not depend on their order.

Legend: K maps of one image, one per threshold; P pixels that are predicted in any of them and near a true one; G true
pixels; E edges (predicted, true) of pixels near each other. A vertex is a pixel in one of the maps, pixel * K + map.
"""

from typing import NamedTuple

import numpy as np

NONE = -1


class Edges(NamedTuple):
    """The neighbours of n pixels: those of pixel i are `targets[starts[i] : starts[i + 1]]`."""

    starts: np.ndarray
    targets: np.ndarray


def match(predicted: np.ndarray, truth: np.ndarray, radius: float) -> np.ndarray:
    """int64 (K,): the largest number of pairs of a pixel of `predicted[k]` and one of `truth` within `radius` pixels.

    Args:
        predicted: bool (K, H, W).
        truth: bool (H, W).
        radius: largest distance of a pair, in pixels.
    """
    rings, present, num_truths = find_edges(predicted, truth, radius)
    partner_of_predicted, partner_of_truth = match_greedily(rings, present, num_truths)
    sources, targets = (np.concatenate(ends) for ends in zip(*rings, strict=True))
    forward = group(sources, targets, len(present))
    backward = group(targets, sources, num_truths)

    # Each map is searched from its side with fewer unmatched pixels: either proves that no path is left.
    reachable = np.zeros(partner_of_truth.shape, dtype=bool)
    for ring_sources, ring_targets in rings:
        reachable[ring_targets] |= present[ring_sources]
    free_predicted = present & (partner_of_predicted == NONE)
    free_truths = reachable & (partner_of_truth == NONE)
    from_predicted = free_predicted.sum(0) <= free_truths.sum(0)
    augment(forward, partner_of_predicted, partner_of_truth, free_predicted & from_predicted, reachable)
    augment(backward, partner_of_truth, partner_of_predicted, free_truths & ~from_predicted, present)
    return (partner_of_truth != NONE).sum(0)


def find_edges(predicted: np.ndarray, truth: np.ndarray, radius: float) -> tuple[list, np.ndarray, int]:
    """The pairs of pixels near each other, in rings of equal offset, nearest first.

    Returns:
        For each offset (sources, targets), the numbers of the predicted and the true pixels that lie so far apart:
        none occurs twice in one ring. Then bool (P, K): in which maps each predicted pixel is. Then G.
    """
    reach = int(radius)
    steps = range(-reach, reach + 1)
    offsets = sorted((dy * dy + dx * dx, dy, dx) for dy in steps for dx in steps if dy * dy + dx * dx <= radius**2)

    width = truth.shape[1] + 2 * reach
    numbers = np.full((truth.shape[0] + 2 * reach, width), NONE, dtype=np.int32)
    rows, columns = np.nonzero(truth)
    numbers[rows + reach, columns + reach] = np.arange(rows.size)
    numbers = numbers.reshape(-1)

    rows, columns = np.nonzero(predicted.any(0))
    places = (rows + reach) * width + columns + reach
    rings = []
    has_neighbour = np.zeros(places.size, dtype=bool)
    for _, dy, dx in offsets:
        neighbours = numbers[places + dy * width + dx]
        sources = np.flatnonzero(neighbours != NONE)
        rings.append((sources, neighbours[sources]))
        has_neighbour[sources] = True
    renumbered = np.cumsum(has_neighbour) - 1
    rings = [(renumbered[sources], targets) for sources, targets in rings]
    present = np.ascontiguousarray(predicted[:, rows[has_neighbour], columns[has_neighbour]].T)
    return rings, present, int(truth.sum())


def match_greedily(rings: list, present: np.ndarray, num_truths: int) -> tuple[np.ndarray, np.ndarray]:
    """Pair what is free, ring by ring: int32 (P, K) and (G, K), each pixel's partner or NONE."""
    free_predicted = present.copy()
    free_truths = np.ones((num_truths, present.shape[1]), dtype=bool)
    partner_of_predicted = np.full(free_predicted.shape, NONE, dtype=np.int32)
    partner_of_truth = np.full(free_truths.shape, NONE, dtype=np.int32)
    for sources, targets in rings:
        paired = free_predicted[sources] & free_truths[targets]
        free_predicted[sources] ^= paired
        free_truths[targets] ^= paired
        edge, number = np.nonzero(paired)
        source, target = sources[edge], targets[edge]
        partner_of_predicted[source, number] = target
        partner_of_truth[target, number] = source
    return partner_of_predicted, partner_of_truth


def group(sources: np.ndarray, targets: np.ndarray, num_sources: int) -> Edges:
    order = np.argsort(sources, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(sources, minlength=num_sources))])
    return Edges(starts, targets[order])


def augment(
    edges: Edges, partner_here: np.ndarray, partner_there: np.ndarray, roots: np.ndarray, present_there: np.ndarray
) -> None:
    """Lengthen a matching, in place, until no augmenting path starts at one of `roots`.

    A breadth-first forest grows from all roots at once over alternating paths. Its trees share no vertex, so each that
    has come to an unmatched vertex yields a path that can be flipped at the same time as the others. A round that
    finds none in a map has proven that map's matching to be maximal.

    Args:
        edges: from the side of the roots to the other.
        partner_here, partner_there: int32 (n, K), the matching seen from the roots' side and from the other.
        roots: bool (n, K), unmatched vertices of this side.
        present_there: bool (n, K), which vertices exist on the other side.
    """
    num_maps = roots.shape[1]
    here, there = partner_here.reshape(-1), partner_there.reshape(-1)
    present_there = present_there.reshape(-1)
    roots = np.flatnonzero(roots)
    while roots.size:
        parent = np.full(there.size, NONE, dtype=np.int64)  # of the vertices of the other side, on this side
        end_of_tree = np.full(roots.size, NONE, dtype=np.int64)
        frontier, tree = roots, np.arange(roots.size)
        while frontier.size:
            reached, origin = neighbours_of(frontier, edges, num_maps)
            new = present_there[reached] & (parent[reached] == NONE)
            reached, origin = reached[new], origin[new]
            parent[reached] = frontier[origin]  # where several arrive, one stays
            stayed = parent[reached] == frontier[origin]
            reached, tree = reached[stayed], tree[origin[stayed]]
            unmatched = there[reached] == NONE
            end_of_tree[tree[unmatched]] = reached[unmatched]
            growing = end_of_tree[tree] == NONE
            frontier = there[reached[growing]].astype(np.int64) * num_maps + reached[growing] % num_maps
            tree = tree[growing]
        found = end_of_tree != NONE
        flip_paths(end_of_tree[found], parent, here, there, num_maps)
        improved = np.zeros(num_maps, dtype=bool)
        improved[roots[found] % num_maps] = True
        roots = roots[~found & improved[roots % num_maps]]


def neighbours_of(frontier: np.ndarray, edges: Edges, num_maps: int) -> tuple[np.ndarray, np.ndarray]:
    """The vertices that the edges from `frontier` lead to, and from which of its entries each was reached."""
    pixels, maps = np.divmod(frontier, num_maps)
    first, degrees = edges.starts[pixels], edges.starts[pixels + 1] - edges.starts[pixels]
    origin = np.repeat(np.arange(frontier.size), degrees)
    rank = np.arange(origin.size) - np.repeat(np.cumsum(degrees) - degrees, degrees)  # 0, 1, ... within each entry
    return edges.targets[first[origin] + rank].astype(np.int64) * num_maps + maps[origin], origin


def flip_paths(end: np.ndarray, parent: np.ndarray, here: np.ndarray, there: np.ndarray, num_maps: int) -> None:
    """Swap matched and unmatched edges along disjoint alternating paths, from their ends back to their roots."""
    while end.size:
        begin = parent[end]
        previous = here[begin].astype(np.int64)  # which `begin` leaves for `end`; a root leaves none
        here[begin], there[end] = end // num_maps, begin // num_maps
        onward = previous != NONE
        end = previous[onward] * num_maps + begin[onward] % num_maps

"""Which objects of a picture are salient: an exact rule over instances, in place of a saliency network's output."""

from __future__ import annotations

import numpy as np

from sak.data.mini.render import Rendering


def salient_mask(rendering: Rendering) -> np.ndarray:
    """Boolean (H, W): the objects of the VOC classes that stand out by size, centredness and nearness.

    An instance's score is area · exp(−2 r²) / depth: its share of the image, the distance r of its centroid from the
    image's middle in half diagonals, and its median depth relative to the nearest such object. Salient is the
    instance with the highest score and every other one that reaches half of it.
    """
    height, width = rendering.semseg.shape
    rows, columns = np.mgrid[:height, :width]
    objects = np.where(rendering.semseg > 0, rendering.instances, 0)
    ids = np.unique(objects)[np.unique(objects) > 0]
    if not len(ids):
        return np.zeros((height, width), bool)
    area = np.asarray([(objects == i).mean() for i in ids])
    depth = np.asarray([np.median(rendering.depth[objects == i]) for i in ids])
    y = np.asarray([rows[objects == i].mean() for i in ids]) - (height - 1) / 2
    x = np.asarray([columns[objects == i].mean() for i in ids]) - (width - 1) / 2
    r2 = (x**2 + y**2) / ((height / 2) ** 2 + (width / 2) ** 2)
    score = area * np.exp(-2 * r2) / (depth / depth.min())
    return np.isin(objects, ids[score >= 0.5 * score.max()])

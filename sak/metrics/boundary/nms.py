"""Non-maximum suppression of boundary maps, as in structured edge detection (Dollár and Zitnick, PAMI 2015).

Legend: H, W image. All arithmetic is float32, as in the tools that the field's numbers come from.
"""

import numpy as np
from scipy.ndimage import correlate1d

ORIENTATION_RADIUS = 4  # pixels, of the triangle filter before the orientation is taken
BORDER = 5  # pixels at each border that are faded out
MULTIPLIER = 1.01  # a pixel survives if this much of it is not below its neighbours


def triangle_filter(image: np.ndarray, radius: int) -> np.ndarray:
    """Smooth (H, W) along both axes with the weights 1, ..., radius + 1, ..., 1, borders mirrored."""
    ramp = np.arange(1, radius + 2)
    weights = np.concatenate([ramp, ramp[-2::-1]]) / (radius + 1) ** 2
    for axis in (0, 1):
        image = correlate1d(image, weights, axis=axis, mode="reflect")
    return image


def orientation(image: np.ndarray) -> np.ndarray:
    """(H, W): the angle across the ridges of a map (H, W), in radians within [0, π)."""

    def gradient(values: np.ndarray, axis: int) -> np.ndarray:
        if values.shape[axis] < 2:
            return np.zeros_like(values)
        return np.gradient(values, axis=axis)

    smooth = triangle_filter(image, ORIENTATION_RADIUS)
    dx, dy = gradient(smooth, 1), gradient(smooth, 0)
    dxx, dxy, dyy = gradient(dx, 1), gradient(dy, 1), gradient(dy, 0)
    with np.errstate(divide="ignore", invalid="ignore"):  # arctan(±inf) is ±π/2; 0 / 0 is settled below
        angle = np.mod(np.arctan(dyy * np.sign(-dxy) / (dxx + np.float32(1e-5))), np.float32(np.pi))
    return np.nan_to_num(angle)


def suppress_non_maxima(image: np.ndarray, reach: int, blur: int) -> np.ndarray:
    """Keep the ridges of a map (H, W) in [0, 1]: float32 (H, W), zero off the ridges, faded out at the borders.

    Args:
        image: float32 (H, W).
        reach: a pixel is compared with those up to `reach` pixels away, across the ridge, on both sides.
        blur: radius of the triangle filter that smooths the map first; 0 = none.
    """
    height, width = image.shape
    angles = orientation(image if blur == 0 else triangle_filter(image, blur))
    image = image if blur == 0 else triangle_filter(image, blur)

    rows, columns = np.nonzero(image)
    steps = [np.float32(step) for distance in range(1, reach + 1) for step in (-distance, distance)]
    for step in steps:
        angle = angles[rows, columns]
        there = interpolate(image, rows + step * np.sin(angle), columns + step * np.cos(angle))
        kept = np.float32(MULTIPLIER) * image[rows, columns] >= there
        rows, columns = rows[kept], columns[kept]
    ridges = np.zeros_like(image)
    ridges[rows, columns] = image[rows, columns]

    border = min(BORDER, height // 2, width // 2)
    fade = (np.arange(border) / max(border, 1)).astype(np.float32)
    ridges[:border] *= fade[:, None]
    ridges[height - border :] *= fade[::-1, None]
    ridges[:, :border] *= fade
    ridges[:, width - border :] *= fade[::-1]
    return ridges


def interpolate(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Bilinear values of (H, W) at the points (y, x), which are moved into the image where they lie outside."""
    height, width = image.shape
    y = np.clip(y, 0, max(height - 1.001, 0)).astype(np.float32)
    x = np.clip(x, 0, max(width - 1.001, 0)).astype(np.float32)
    top, left = y.astype(np.int64), x.astype(np.int64)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    dy, dx = y - top.astype(np.float32), x - left.astype(np.float32)
    above = (1 - dx) * image[top, left] + dx * image[top, right]
    below = (1 - dx) * image[bottom, left] + dx * image[bottom, right]
    return (1 - dy) * above + dy * below

"""A picture as the vocabulary sees it: square, whole, and not turned over."""

import numpy as np
from PIL import Image


def square(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 (H, W, 3) resized to (side, side, 3), whatever its shape, as Vary does: nothing is cropped or padded.

    Boxes are shares of width and height, and stay as they are.
    """
    if image.shape[:2] == (side, side):
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))

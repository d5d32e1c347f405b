"""Transforms of samples: the published training recipe and the evaluation's padding.

A sample is a dict of NumPy arrays over one pixel grid, all 255 where a label is to be ignored:
    image                               (H, W, 3)  uint8, RGB; float32 in 0..255 once its colours were distorted
    labels of classes                   (H, W)     integers
    of all other kinds (`Kind`)         (H, W, C)  float32, vectors x to the right
    boundaries                          (H, W, 1)  uint8
What happens to a label depends on the kind of its task's labels, not on its name.
The image may be missing where only labels are asked for. What is not an array (the name) passes through. A transform
returns a new sample and leaves the given one as it was; the random ones draw from the generator that they are handed.
"""

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN

from sak.labels import IGNORE
from sak.metrics.boundary import boundary_map
from sak.tasks import Kind, Task

SCALE = (0.5, 2.0)  # of training, as published
MEAN_COLOUR = IMAGENET_DEFAULT_MEAN  # RGB in [0, 1]: what padding shows

# Data loaders already run one process per core; OpenCV's own threads would only contend with them.
cv2.setNumThreads(0)

Sample = dict
Tasks = Mapping[str, Task]  # of a sample's labels, and of others
Size = Sequence[int]  # height, width


def labels(sample: Sample) -> list[str]:
    """The keys of the label arrays."""
    return [key for key, value in sample.items() if key != "image" and isinstance(value, np.ndarray)]


def grid(sample: Sample) -> tuple[int, int]:
    """(H, W) of a sample, of its image or its labels."""
    height, width = next(value for value in sample.values() if isinstance(value, np.ndarray)).shape[:2]
    return height, width


def map_arrays(sample: Sample, function: Callable[[np.ndarray], np.ndarray | torch.Tensor]) -> Sample:
    """Apply `function` to the image and to every label alike."""
    return {key: function(value) if isinstance(value, np.ndarray) else value for key, value in sample.items()}


def resize_nearest(label: np.ndarray, size: Size) -> np.ndarray:
    """Sample (H, W, ...) at the centres of the new pixels, as the image's interpolation does, for any type."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64) for new, old in zip(size, label.shape[:2], strict=True)
    )
    return label.take(columns, axis=1).take(rows, axis=0)  # many times as fast as one indexing by both


def resize(sample: Sample, size: Size, interpolation: int = cv2.INTER_LINEAR) -> Sample:
    """Image interpolated, labels nearest: classes do not blend, unit vectors stay unit."""
    result = dict(sample)
    if "image" in sample:
        result["image"] = cv2.resize(sample["image"], (size[1], size[0]), interpolation=interpolation)
    for key in labels(sample):
        result[key] = resize_nearest(sample[key], size)
    return result


def of_kind(kind: Kind, sample: Sample, tasks: Tasks) -> list[str]:
    """The keys of the labels of that kind."""
    return [name for name, task in tasks.items() if task.kind is kind and name in sample]


def random_scale(
    sample: Sample, rng: np.random.Generator, tasks: Tasks, low: float = SCALE[0], high: float = SCALE[1]
) -> Sample:
    """Resize by one factor drawn from [low, high); what is seen larger is nearer: distances are divided by it."""
    factor = rng.uniform(low, high)
    height, width = sample["image"].shape[:2]
    result = resize(sample, (max(1, round(height * factor)), max(1, round(width * factor))))
    for name in of_kind(Kind.DISTANCE, sample, tasks):
        distance = result[name]
        result[name] = np.where(distance == IGNORE, distance, distance / np.float32(factor))
    return result


def random_crop(
    sample: Sample, rng: np.random.Generator, size: Size, max_share: float = 0.75, tries: int = 10
) -> Sample:
    """Cut out a window of `size` (or all there is), the first of `tries` in which no semseg class dominates.

    A class dominates where it holds more than `max_share` of the valid pixels. If each of the windows has one, or
    none has a valid pixel, the last is taken; so is the first where semseg is not among the labels.
    """
    height, width = sample["image"].shape[:2]
    crop_height, crop_width = min(size[0], height), min(size[1], width)
    for _ in range(tries):
        top = int(rng.integers(height - crop_height + 1))
        left = int(rng.integers(width - crop_width + 1))
        window = np.s_[top : top + crop_height, left : left + crop_width]
        if "semseg" not in sample:
            break
        classes = sample["semseg"][window]
        counts = np.bincount(classes[classes != IGNORE])
        if counts.size and counts.max() <= max_share * counts.sum():
            break
    return map_arrays(sample, lambda array: array[window])


def flip(sample: Sample, tasks: Tasks) -> Sample:
    """Mirror left and right; vectors point the other way along x."""
    result = map_arrays(sample, lambda array: array[:, ::-1])
    for name in of_kind(Kind.VECTORS, sample, tasks):
        vectors = result[name].copy()
        valid = (vectors != IGNORE).all(axis=-1)
        vectors[valid, 0] *= -1
        result[name] = vectors
    return result


def random_flip(sample: Sample, rng: np.random.Generator, tasks: Tasks, probability: float = 0.5) -> Sample:
    return flip(sample, tasks) if rng.random() < probability else sample


def photometric_distortion(sample: Sample, rng: np.random.Generator) -> Sample:
    """Distort brightness (±32/255), contrast and saturation (×0.5..1.5) and hue (±36°), each in half of the cases.

    As in SSD (Liu et al., 2016, arXiv 1512.02325): contrast comes before saturation and hue in half of the cases,
    else after. The image becomes float32 in 0..255.
    """

    def chance() -> bool:
        return rng.random() < 0.5

    def clipped(values: np.ndarray) -> np.ndarray:
        return np.clip(values, 0, 1, dtype=np.float32)

    image = sample["image"].astype(np.float32) / 255
    if chance():
        image = clipped(image + rng.uniform(-32, 32) / 255)
    contrast = rng.uniform(0.5, 1.5) if chance() else 1.0
    contrast_first = chance()
    if contrast_first:
        image = clipped(image * contrast)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)  # hue in degrees, the others in [0, 1]
    if chance():
        hsv[..., 1] = clipped(hsv[..., 1] * rng.uniform(0.5, 1.5))
    if chance():
        hsv[..., 0] = (hsv[..., 0] + rng.uniform(-36, 36)) % 360
    image = clipped(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    if not contrast_first:
        image = clipped(image * contrast)
    return {**sample, "image": 255 * image}


def fit(sample: Sample, size: Size) -> Sample:
    """Shrink a sample that is larger than `size` until it fits, keeping its aspect ratio; never enlarge it."""
    height, width = grid(sample)
    factor = min(size[0] / height, size[1] / width)
    if factor >= 1:
        return sample
    return resize(sample, (max(1, round(height * factor)), max(1, round(width * factor))), cv2.INTER_AREA)


def margins(size: Size, canvas: Size) -> tuple[int, int]:
    """(top, left): where an image of `size` = (h, w) lies in a padded `canvas` = (H, W); it is centred."""
    return (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2


def place(sample: Sample, canvas: Size, colour: np.ndarray) -> Sample:
    """Centre the sample on a `canvas` of a colour (3,), whose type the image takes, and of 255 (labels).

    Adds "size", the (h, w) of what was placed; `margins` tells where it lies.
    """
    size = grid(sample)
    top, left = margins(size, canvas)

    def paste(array: np.ndarray, background: np.ndarray) -> np.ndarray:
        padded = np.broadcast_to(background, (*canvas, *array.shape[2:])).astype(background.dtype)
        padded[top : top + size[0], left : left + size[1]] = array
        return padded

    result = {**sample, "size": size}
    if "image" in sample:
        result["image"] = paste(sample["image"], colour)
    for key in labels(sample):
        result[key] = paste(sample[key], np.array(IGNORE, dtype=sample[key].dtype))
    return result


def pad(sample: Sample, canvas: Size) -> Sample:
    """`place` on the mean colour, which makes the image float32 in 0..255."""
    return place(sample, canvas, np.float32(255) * np.array(MEAN_COLOUR, dtype=np.float32))


def ignore_empty(sample: Sample, tasks: Tasks) -> Sample:
    """Ignore the labels of a task altogether where nothing but background is seen, if its data set says so.

    So it is with human parts: such images were mostly not annotated for them.
    """
    result = dict(sample)
    for name, task in tasks.items():
        said, label = task.description, sample.get(name)
        if label is not None and said.ignore_empty and not ((label != said.background) & (label != IGNORE)).any():
            result[name] = np.full_like(label, IGNORE)
    return result


def tensors(sample: Sample) -> Sample:
    """Arrays with a channel axis to (C, H, W) of their type, class maps to int64 (H, W)."""

    def tensor(array: np.ndarray) -> torch.Tensor:
        if array.ndim == 2:
            return torch.from_numpy(array.astype(np.int64))
        return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))

    return map_arrays(sample, tensor)


def to_tensors(sample: Sample) -> Sample:
    """`tensors`, with the image as float32 in [0, 1]."""
    result = tensors(sample)
    result["image"] = result["image"].float() / 255
    return result


def finish(sample: dict) -> dict:
    """Make "image", float32 in [0, 1], of "pixels", which are uint8 and black in the padding, if they are there.

    A quarter of the bytes leave a worker process where this is done behind it, on whatever device. Nothing waits for
    the device, and the numbers are the same to the bit on all of them.

    Args:
        sample: or a batch: pixels (..., 3, H, W), and "size", the heights and widths (...), if there is padding.
    """
    if "pixels" not in sample:
        return sample
    sample = dict(sample)
    image = sample.pop("pixels")
    # By a tensor: by a number, a GPU multiplies with the reciprocal, and rounds otherwise.
    whole = torch.full((), 255.0, device=image.device)
    image = image.float() / whole
    if "size" in sample:
        inside = [
            _between(torch.as_tensor(side, device=image.device), length)
            for side, length in zip(sample["size"], image.shape[-2:], strict=True)
        ]
        # Filled in on the device: numbers that are sent to it are waited for.
        mean = torch.stack([torch.full((1, 1), value, device=image.device) for value in MEAN_COLOUR])
        mean = mean * whole / whole  # rounded as in `pad`
        image = torch.where((inside[0][..., :, None] & inside[1][..., None, :])[..., None, :, :], image, mean)
    return {**sample, "image": image}


def _between(side: torch.Tensor, length: int) -> torch.Tensor:
    """(..., length): which of the rows, or columns, of a canvas an image of this side (...) covers: see `margins`."""
    first = (length - side[..., None]) // 2
    places = torch.arange(length, device=side.device)
    return (places >= first) & (places < first + side[..., None])


def for_training(
    sample: Sample,
    rng: np.random.Generator,
    size: Size,
    tasks: Tasks,
    scale: tuple[float, float] = SCALE,
    draw_edges: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Sample:
    """The published multi-task training recipe (SAK, arXiv 2410.14633, and its predecessors).

    Args:
        scale: least and largest factor of the random scale.
        draw_edges: from a map of regions (H, W), which "edge" is here, to its label; None: it is that already.
    """
    sample = random_scale(sample, rng, tasks, *scale)
    if draw_edges is not None and "edge" in sample:
        sample = {**sample, "edge": draw_edges(sample["edge"])}
    sample = random_crop(sample, rng, size)
    sample = random_flip(sample, rng, tasks)
    sample = photometric_distortion(sample, rng)
    return to_tensors(pad(ignore_empty(sample, tasks), size))


def evaluated_boundaries(regions: np.ndarray, label: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 1): 1 between regions (H, W); all 255 where the label (H, W, 1) is: there is nothing to match.

    To be drawn after both were fitted: a drawn line would not survive shrinking.
    """
    drawn = boundary_map(regions).astype(np.uint8)[..., None]
    return np.full_like(drawn, IGNORE) if (label == IGNORE).all() else drawn


def packed_for_evaluation(sample: Sample, size: Size, tasks: Tasks) -> Sample:
    """The whole image, shrunk only where it is larger than the canvas, before `finish`."""
    result = tensors(place(ignore_empty(fit(sample, size), tasks), size, np.zeros(3, np.uint8)))
    if "image" in result:
        result["pixels"] = result.pop("image")
    return result

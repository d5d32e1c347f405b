"""What a miniature has to know before it is worth shipping, in percent on held-out scenes."""

from collections.abc import Mapping

# The least, and by how much at least it must be above what pixels alone tell (or what it is compared with).
REQUIRED: dict[str, dict[str, tuple[float, float]]] = {
    "dinov2": {"class, 20-NN": (50, 15), "semseg, linear mIoU": (20, 5)},
    "clip": {"image to text, recall@5": (60, 40), "text to image, recall@5": (60, 40), "class, 20-NN": (45, 15)},
    "sam": {"all regions, mean IoU": (50, 10), "objects, mean IoU": (40, 10), "boundaries, linear AP": (50, 5)},
    "vit": {"average precision, mean over classes": (50, 25), "class, 20-NN": (50, 15)},
}


def shortfalls(name: str, measured: Mapping[str, tuple[float, ...]], layers: tuple[float, float]) -> list[str]:
    """A sentence for each requirement that a miniature does not meet.

    Args:
        measured: {measure: the network's percentage, then what it is compared with}.
        layers: the segmentation of a block in the middle and of the last; DINOv2's last must be the better.
    """
    found = []
    for measure, (least, above) in REQUIRED[name].items():
        ours, theirs = measured[measure][:2]
        if ours < least or ours < theirs + above:
            found.append(f"{name}: {measure} is {ours:.1f}, but must be {least} and {above} above {theirs:.1f}")
    if name == "dinov2" and layers[1] < layers[0]:
        found.append(f"{name}: its last block segments at {layers[1]:.1f}, a block in its middle at {layers[0]:.1f}")
    return found

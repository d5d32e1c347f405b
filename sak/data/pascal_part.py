"""PASCAL VOC's classes; PASCAL-Part's names of a person's parts, and the labels that the release merges them into."""

VOC = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
PERSON = 15  # among VOC's classes, and PASCAL-Part's class_ind

_MERGED = {
    1: "hair head lear rear lebrow rebrow leye reye mouth nose",
    2: "neck torso",
    3: "luarm ruarm",
    4: "llarm rlarm lhand rhand",
    5: "luleg ruleg",
    6: "llleg rlleg lfoot rfoot",
}
PART_LABELS = {name: label for label, names in _MERGED.items() for name in names.split()}  # {part: label}

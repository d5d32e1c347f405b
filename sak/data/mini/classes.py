"""Names and ids: the 20 VOC classes, the PASCAL-Context classes that a scene can show, and the body parts.

Context ids are those of PASCAL-Context's 459 classes.
"""

from sak.data.pascal_part import PART_LABELS, VOC

VOC_ID = {name: index for index, name in enumerate(VOC)}

CONTEXT_ID = {
    **{"aeroplane": 2, "bag": 9, "ball": 10, "barrel": 13, "basket": 15, "bench": 22, "bicycle": 23, "bird": 25},
    **{"boat": 31, "book": 33, "bottle": 34, "box": 37},
    **{"building": 44, "bus": 45, "cabinet": 46, "car": 59, "cat": 65, "ceiling": 68, "chair": 72, "cow": 98},
    **{"cup": 104, "curtain": 105, "cushion": 106, "dog": 113, "door": 115, "fence": 144, "floor": 158, "grass": 187},
    **{"ground": 189, "horse": 207, "light": 232, "motorbike": 258, "mountain": 259, "person": 284, "picture": 287},
    **{"pottedplant": 308, "road": 324, "rock": 326, "rug": 330, "runway": 332, "sand": 334, "sheep": 347},
    **{"shelves": 349, "sidewalk": 354, "sky": 360, "sofa": 368, "table": 397, "track": 415, "train": 416},
    **{"tree": 420, "tvmonitor": 427, "unknown": 431, "wall": 440, "water": 445, "window": 454},
}

# The names in the archive's nyu_classes.json: only where the context class is one of them (or "tvmonitor") are normals
# valid. NYU's indoor classes, and the man-made surfaces out of doors that stand where walls and floors would.
NYU = (
    *("building", "road", "runway", "sidewalk", "ground"),
    *("unknown", "wall", "floor", "cabinet", "chair", "sofa", "table", "door", "window", "shelves", "picture"),
    *("curtain", "cushion", "ceiling", "book", "person", "light", "box", "bottle", "cup", "rug", "bench", "bicycle"),
    *("bag", "ball", "basket"),
)
NORMALS_VALID_IDS = tuple(CONTEXT_ID[name] for name in (*NYU, "tvmonitor") if name in CONTEXT_ID and name != "unknown")

# What lies around things: the classes of surfaces, sky and water.
STUFF = ("wall", "floor", "ceiling", "grass", "sand", "water", "road", "runway", "track", "sky")

PART_NAMES = tuple(PART_LABELS)

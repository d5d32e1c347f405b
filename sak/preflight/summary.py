"""What the survey of an archive says in words: facts, the problems that only many images show, and how to mend them."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from sak.preflight.examination import STORED, Problem
from sak.tasks import Kind, Task

MOST_SHOWN = 25  # classes in a line
METRES = (0.3, 20.0)  # between these lies the median depth of any set of rooms
# kind of a problem: (what it is, how to mend it)
REMEDIES = {
    "archive": ("the archive is not where the config says", "set data.root to the folder that holds the archive"),
    "rendering": ("another mini_context lies there", "name another data.root, remove the old one, or ask for the same"),
    "count": ("another number of images than expected", "restore the lists of ids from the release"),
    "list": ("lists of ids that cannot be read", "correct the line that is named, or restore the list"),
    "repeated": ("ids that occur more than once in a list", "restore the list from the release"),
    "overlap": (
        "ids that are both in train and in val",
        "restore both lists from the release: a val that was trained on measures nothing",
    ),
    "no labels": (
        "files that are not there",
        "correct data.images and data.labels, or leave the task out of data.tasks",
    ),
    "unnamed classes": (
        "classes without names",
        "name them in data.classes, or one a line in a classes.txt beside the images; numbers stand in for them here",
    ),
    "numbers": (
        "labels hold other numbers than the config says",
        "name as many classes as there are in data.classes, and set values, ignore or reduce_zero_label in data.labels",
    ),
    "missing": ("missing files", "extract the archive again, or leave the task out of data.tasks"),
    "corrupt": ("files that cannot be read", "restore them from the archive; if they are many, check the disk"),
    "pixels": ("images whose black and white cannot be told", "convert them to 8 bits a channel"),
    "range": ("labels out of range", "restore them from the archive, and check that data.dataset is what lies there"),
    "content": (
        "files that hold something else",
        "restore them from the archive, and check that data.dataset is what lies there",
    ),
    "size": ("labels of another size than their image", "restore both from the archive: never resize them on disk"),
    "levels": ("maps whose lowest and highest level cannot be told", "store them in 8 bits as 0..255"),
    "saliency": ("saliency that is not stored like the rest of the set", "store all maps in 8 bits as 0..255"),
    "normals": (
        "normals that are not unit vectors",
        "store them as 255 (n + 1) / 2 in the order x, y, z, rounded, or ignore those that are far from it: "
        "data.normals_tolerance=0.05",
    ),
    "facing": (
        "normals whose z has no one sign",
        "all visible surfaces face the camera: check the channels' order (x, y, z) and the signs",
    ),
    "label map": ("label maps of PASCAL-Context that are none", "restore pascal-context/trainval from the archive"),
    "edges": ("edge maps that are not 0 and 255", "store 255 on boundaries, 0 elsewhere, and never resize the maps"),
    "depth values": ("depths that are negative or not finite", "store 0 where nothing was measured"),
    "depth": ("depth in another unit than metres", "divide the maps by what the unit says, and store float32 metres"),
    "distillation images": ("no images to distil from", "set stages.distill.images, or null for the training images"),
    "teacher": ("teachers that cannot be built", "correct the teacher's entry, or fetch the weights that it names"),
    "config": ("parts of the config that do not fit together", "correct the config"),
}


def summarise(
    tasks: Sequence[Task],
    sums: Counter,
    values: Mapping[str, list],
    facts: list[tuple[str, str]],
    problems: list[Problem],
) -> None:
    """Add facts in words, and the problems that only many images show.

    Args:
        tasks: those that the config names.
    """

    def share(part: str, whole: str) -> str:
        return f"{sums[part] / max(1, sums[whole]):.1%}"

    if sums["images"]:
        sides = [[value for value, _ in values[side]] for side in ("height", "width")]
        modes = describe_modes(sums)
        sizes = " x ".join(f"{min(side)}..{max(side)}" for side in sides)
        larger = f"{sums['larger']:,} are larger than data.image_size and are shrunk for the evaluation"
        facts.append(("images", f"{sums['images']:,} read ({modes}), {sizes} pixels (height x width); {larger}"))
    for task in tasks:
        if sums[f"{task.name} maps"] and task.kind is Kind.CLASSES and task.name != "saliency":
            facts += describe_classes(task, sums)
    if maps := sums["saliency maps"]:
        facts.append(("saliency", f"{maps:,} maps, {share('saliency salient', 'saliency pixels')} of the pixels "
                      f"salient, {sums['saliency without']:,} maps without any"))  # fmt: skip
        if not sums["saliency salient"]:
            problems.append(Problem("saliency", "saliency", "no pixel of any map is salient"))
        problems += mixed_encodings(values)
    if maps := sums["normals maps"]:
        summarise_normals(sums, values, share, facts, problems)
    for name in [task.name for task in tasks if task.kind is Kind.BOUNDARY and sums[f"{task.name} maps"]]:
        drawn = share(f"{name} drawn", f"{name} pixels")
        facts.append((name, f"{sums[f'{name} maps']:,} maps, boundaries on {drawn} of the pixels before thinning, "
                      f"{sums[f'{name} without']:,} maps without any"))  # fmt: skip
    if maps := sums["depth maps"]:
        medians = [median for median, _ in values.get("depth", [(float("nan"), None)])]
        median = float(np.median(medians))
        facts.append(("depth", f"{maps:,} maps, {share('depth valid', 'depth pixels')} of the pixels measured, "
                      f"median {median:.3g}, {sums['depth far']:,} pixels beyond what is evaluated"))  # fmt: skip
        if not METRES[0] <= median <= METRES[1]:
            unit = "millimetres" if median > 700 else "centimetres" if median > METRES[1] else "no unit known"
            problems.append(Problem("depth", "depth", f"the median is {median:.4g}: these look like {unit}"))


def describe_classes(task: Task, sums: Counter) -> Iterator[tuple[str, str]]:
    """What was seen of the classes, and how much of each."""
    name = task.name
    seen = sorted(int(key.split()[-1]) for key in sums if key.startswith(f"{name} class "))
    valid, pixels = sums[f"{name} valid"], max(1, sums[f"{name} pixels"])
    text = f"{sums[f'{name} maps']:,} maps, {valid / pixels:.1%} of the pixels valid; "
    text += f"{len(seen)} of {task.channels} classes seen ({ranges(seen) or 'none'})"
    if task.description.ignore_empty:
        text += f"; {sums[f'{name} empty']:,} maps show none but {task.classes[0]} and are ignored as a whole"
    yield name, text
    shares = {label: sums[f"{name} pixels of {label}"] / max(1, valid) for label in range(task.channels)}
    most = sorted(shares, key=lambda label: -shares[label])
    yield f"{name}, pixels", _listed([f"{_name(task, label)} {shares[label]:.1%}" for label in most])
    if unseen := [_name(task, label) for label in range(task.channels) if label not in seen]:
        yield f"{name}, unseen", _listed(unseen)


def _name(task: Task, label: int) -> str:
    return task.classes[label] if task.classes else str(label)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_SHOWN
    return ", ".join(names[:MOST_SHOWN]) + (f", {more} more" if more > 0 else "")


def describe_modes(sums: Counter) -> str:
    return ", ".join(f"{sums[key]:,} {key.split()[1]}" for key in sorted(sums) if key.startswith("mode "))


def mixed_encodings(values: Mapping[str, list]) -> Iterator[Problem]:
    """The maps of saliency that are stored in another way than most: either their levels or the others' are misread."""
    files = {key.removeprefix(STORED): found for key, found in values.items() if key.startswith(STORED)}
    if len(files) > 1:
        most = max(files, key=lambda encoding: len(files[encoding]))
        for encoding in files.keys() - {most}:
            for _, path in files[encoding]:
                yield Problem("saliency", "saliency", f"{path} is stored as {encoding}, most maps as {most}")


def summarise_normals(
    sums: Counter, values: Mapping[str, list], share: Callable, facts: list[tuple[str, str]], problems: list[Problem]
) -> None:
    valid, toward = sums["normals valid"], sums["normals toward"]
    text = f"{sums['normals maps']:,} maps, {share('normals valid', 'normals pixels')} of the pixels valid, "
    text += f"{sums['normals all ignored']:,} maps without any"
    if valid:
        text += f"; {share('normals exact', 'normals valid')} of unit length within rounding; "
        text += f"z > 0 on {share('normals toward', 'normals valid')}"
        for key, meaning in (("normals x", ("right", "left")), ("normals y", ("up", "down"))):
            if key in values:
                mean = float(np.mean([value for value, _ in values[key]]))
                text += f", {key[-1]} points {meaning[mean < 0]} ({mean:+.2f})"
        sign = toward / valid
        if 0.2 < sign < 0.8:
            detail = f"z is positive on {sign:.0%} of the valid pixels of the set"
            problems.append(Problem("facing", "normals", detail))
        else:
            opposite = [(value, path) for value, path in values["normals toward"] if abs(value - sign) > 0.8]
            problems += [
                Problem("facing", "normals", f"{path}: z is positive on {value:.0%}, in the set on {sign:.0%}")
                for value, path in opposite
            ]
    facts.append(("normals", text))


def ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] -> "0..2, 5"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def report(problems: list[Problem], shown: int = 3) -> str:
    """All problems in groups: how many, the first few, and how to mend them."""
    groups: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        groups.setdefault((problem.kind, problem.subject), []).append(problem.detail)
    lines = []
    for (kind, subject), details in groups.items():
        title, remedy = REMEDIES[kind]
        lines.append(f"{title} ({subject}): {len(details):,}")
        lines += [f"    {detail}" for detail in details[:shown]]
        if len(details) > shown:
            lines.append(f"    ... and {len(details) - shown:,} more")
        lines.append(f"  -> {remedy}")
    return "\n".join(lines)

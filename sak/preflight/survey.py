"""A whole archive, checked before anyone trains on it: all that is wrong with it, and how to mend it.

Nothing is ever written, and nothing stops at the first problem.
"""

import dataclasses
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from sak.config.schema import DataConfig
from sak.data import SPLITS, kind_of
from sak.data.archive import Archive
from sak.errors import UserError
from sak.preflight.examination import Findings, Problem, examine

METRES = (0.3, 20.0)  # between these lies the median depth of any set of rooms
# kind of a problem: (what it is, how to mend it)
REMEDIES = {
    "archive": ("the archive is not where the config says", "set data.root to the folder that holds the archive"),
    "rendering": ("another mini_context lies there", "name another data.root, remove the old one, or ask for the same"),
    "count": ("another number of images than expected", "restore the lists of ids from the release"),
    "repeated": ("ids that occur more than once in a list", "restore the list from the release"),
    "overlap": (
        "ids that are both in train and in val",
        "restore both lists from the release: a val that was trained on measures nothing",
    ),
    "missing": ("missing files", "extract the archive again, or leave the task out of data.tasks"),
    "damaged": ("files that cannot be read", "restore them from the archive; if they are many, check the disk"),
    "mode": ("images of an unusual mode", "they are read as RGB; convert them where their colours look wrong"),
    "range": ("labels out of range", "restore them from the archive, and check that data.dataset is what lies there"),
    "content": (
        "files that hold something else",
        "restore them from the archive, and check that data.dataset is what lies there",
    ),
    "size": ("labels of another size than their image", "restore both from the archive: never resize them on disk"),
    "saliency": ("saliency that is not stored as 0..255", "multiply the maps so that salient pixels are 255"),
    "normals": ("normals that are not unit vectors", "store them as 255 (n + 1) / 2 in the order x, y, z, rounded"),
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


@dataclasses.dataclass
class Survey:
    """
    Attributes:
        facts: (subject, what was found), for people.
        problems: all that is wrong.
        counts: {split: number of listed images}, where there is a list.
    """

    facts: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    problems: list[Problem] = dataclasses.field(default_factory=list)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)


def survey_archive(
    data: DataConfig | DictConfig, sample: int | None = None, workers: int = 0, progress: bool = True
) -> Survey:
    """Check lists, files and the content of every file of a config's data set.

    Args:
        sample: read only so many images, drawn at random but always the same; None: all.
        workers: processes that read; with 0 the calling one does.
        progress: whether to show a bar.

    Raises:
        UserError: the data set's name, or one of the tasks, is unknown.
    """
    kind = kind_of(data.dataset)
    survey, root = Survey(), Path(data.root)
    if unknown := [task for task in data.tasks if task not in kind.TASKS]:
        raise UserError(f"{kind.TITLE} has no task {unknown[0]!r}: it has {', '.join(kind.TASKS)}.")
    expected = kind.RELEASE
    if data.dataset == "mini_context":
        expected = {"train": data.renderer.train, "val": data.renderer.val}
        if not survey_rendering(data, survey):
            survey.counts = dict(expected)
            return survey
    names = list_names(kind, root, expected, survey)
    jobs = list(find_jobs(kind, root, names, data.tasks, survey))
    if sample is not None and sample < len(jobs):
        survey.facts.append(("sample", f"{sample:,} of {len(jobs):,} images are read, drawn at random"))
        chosen = np.random.default_rng(0).choice(len(jobs), sample, replace=False)
        jobs = [jobs[index] for index in sorted(chosen)]
    if not jobs:
        return survey
    sums: Counter[str] = Counter()
    values: dict[str, list] = {}
    examined = Examined(kind, tuple(data.image_size), jobs)
    loader = DataLoader(examined, num_workers=workers, collate_fn=first, worker_init_fn=leave_interrupts)
    bar = tqdm(loader, desc="read", unit="img", disable=not progress, mininterval=0.5, dynamic_ncols=True)
    for files, findings in zip(jobs, bar, strict=True):
        survey.problems += findings.problems
        sums.update(findings.sums)
        for key, value in findings.values.items():
            values.setdefault(key, []).append((value, files.get(key.split()[0], files["image"])[0]))
    summarise(sums, values, survey)
    return survey


def survey_rendering(data: DataConfig | DictConfig, survey: Survey) -> bool:
    """Whether a finished mini_context lies at the root."""
    from sak.data.mini import archive as mini

    root, settings = Path(data.root), data.renderer
    wanted = {"train": settings.train, "val": settings.val, "size": data.image_size[0], "seed": settings.seed}
    try:
        finished = mini.is_finished(root, wanted)
    except UserError as error:
        survey.problems.append(Problem("rendering", "mini_context", str(error)))
        return True
    if not finished:
        text = f"not there yet: the first training renders {settings.train} + {settings.val} scenes into {root}"
        survey.facts.append(("mini_context", text))
    return finished


def list_names(kind: type[Archive], root: Path, expected: dict[str, int], survey: Survey) -> dict:
    """{split: its ids}, each once."""
    names = {}
    for split in SPLITS:
        try:
            listed = kind.list_names(root, split)
        except UserError as error:
            survey.problems.append(Problem("archive", split, str(error)))
            continue
        repeated = [name for name, times in Counter(listed).items() if times > 1]
        survey.problems += [Problem("repeated", split, name) for name in repeated]
        if len(listed) != expected[split]:
            detail = f"{kind.LISTS.format(split)} lists {len(listed):,} where {expected[split]:,} are expected"
            survey.problems.append(Problem("count", split, detail))
        survey.facts.append((split, f"{len(listed):,} images listed, {expected[split]:,} expected"))
        survey.counts[split] = len(listed)
        names[split] = list(dict.fromkeys(listed))
    shared = sorted(set(names.get("train", ())) & set(names.get("val", ())))
    survey.problems += [Problem("overlap", "train and val", name) for name in shared]
    return names


def find_jobs(kind: type[Archive], root: Path, names: dict, tasks: list[str], survey: Survey) -> Iterator[dict]:
    """What `examine` reads of each image; missing files are noted once for each task."""
    for split, listed in names.items():
        files, missing = kind.find_files(root, listed, tasks)
        survey.problems += [Problem("missing", f"{task}, {split}", file) for task, file in missing]
        for index in range(len(listed)):
            yield {key: paths[index] for key, paths in files.items()}


class Examined(Dataset):
    """The findings of each image, so that a loader's worker processes share the reading."""

    def __init__(self, kind: type[Archive], canvas: Sequence[int], jobs: list[dict]):
        self.kind, self.canvas, self.jobs = kind, canvas, jobs

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> Findings:
        return examine(self.kind, self.canvas, self.jobs[index])


def leave_interrupts(_: int) -> None:
    """Ctrl-C reaches the whole process group; the main process alone ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def first(findings: list[Findings]) -> Findings:
    return findings[0]


def summarise(sums: Counter, values: dict[str, list], survey: Survey) -> None:
    """Facts in words, and the problems that only many images show."""
    facts, problems = survey.facts, survey.problems

    def share(part: str, whole: str) -> str:
        return f"{sums[part] / max(1, sums[whole]):.1%}"

    if sums["images"]:
        sides = [[value for value, _ in values[side]] for side in ("height", "width")]
        modes = ", ".join(f"{sums[key]:,} {key.split()[1]}" for key in sorted(sums) if key.startswith("mode "))
        sizes = " x ".join(f"{min(side)}..{max(side)}" for side in sides)
        larger = f"{sums['larger']:,} are larger than data.image_size and are shrunk for the evaluation"
        facts.append(("images", f"{sums['images']:,} read ({modes}), {sizes} pixels (height x width); {larger}"))
    if maps := sums["semseg maps"]:
        seen = sorted(int(key.split()[-1]) for key in sums if key.startswith("semseg class "))
        facts.append(("semseg", f"{maps:,} maps, {share('semseg valid', 'semseg pixels')} of the pixels valid; "
                      f"{len(seen)} classes seen ({ranges(seen)})"))  # fmt: skip
    if maps := sums["human_parts maps"]:
        seen = sorted(int(key.split()[-1]) for key in sums if key.startswith("human_parts part "))
        facts.append(("human_parts", f"{maps:,} maps, {sums['human_parts without']:,} without a part (ignored as a "
                      f"whole); parts seen: {ranges(seen) or 'none'}"))  # fmt: skip
    if maps := sums["saliency maps"]:
        facts.append(("saliency", f"{maps:,} maps, {share('saliency salient', 'saliency pixels')} of the pixels "
                      f"salient, {sums['saliency without']:,} maps without any"))  # fmt: skip
        if not sums["saliency salient"]:
            problems.append(Problem("saliency", "saliency", "no pixel of any map is salient"))
    if maps := sums["normals maps"]:
        summarise_normals(sums, values, share, survey)
    if maps := sums["edge maps"]:
        facts.append(("edge", f"{maps:,} maps, boundaries on {share('edge drawn', 'edge pixels')} of the pixels "
                      f"before thinning, {sums['edge without']:,} maps without any"))  # fmt: skip
    if maps := sums["depth maps"]:
        medians = [median for median, _ in values.get("depth", [(float("nan"), None)])]
        median = float(np.median(medians))
        facts.append(("depth", f"{maps:,} maps, {share('depth valid', 'depth pixels')} of the pixels measured, "
                      f"median {median:.3g}, {sums['depth far']:,} pixels beyond what is evaluated"))  # fmt: skip
        if not METRES[0] <= median <= METRES[1]:
            unit = "millimetres" if median > 700 else "centimetres" if median > METRES[1] else "no unit known"
            problems.append(Problem("depth", "depth", f"the median is {median:.4g}: these look like {unit}"))


def summarise_normals(sums: Counter, values: dict[str, list], share, survey: Survey) -> None:
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
            survey.problems.append(Problem("facing", "normals", detail))
        else:
            opposite = [(value, path) for value, path in values["normals toward"] if abs(value - sign) > 0.8]
            survey.problems += [
                Problem("facing", "normals", f"{path}: z is positive on {value:.0%}, in the set on {sign:.0%}")
                for value, path in opposite
            ]
    survey.facts.append(("normals", text))


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

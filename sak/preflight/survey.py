"""A whole archive, checked before anyone trains on it: all that is wrong with it, and how to mend it.

Nothing is ever written, and nothing stops at the first problem.
"""

import dataclasses
import functools
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from torch.utils.data import DataLoader, Dataset

from sak.config.schema import DataConfig
from sak.data import SPLITS, kind_of, rendering
from sak.data.archive import Archive
from sak.data.discovery import told
from sak.data.images import find_images
from sak.errors import UserError, printable
from sak.preflight.examination import Findings, Problem, examine, examine_unlabelled
from sak.preflight.own_data import missing_labels, numbers_outside
from sak.preflight.summary import describe_modes, summarise
from sak.progress import progress_bar


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
    kind = kind_of(data)
    survey, root = Survey(), Path(os.path.expanduser(data.root))
    chosen_tasks = [kind.DESCRIPTION.build(entry) for entry in data.tasks]
    expected = kind.DESCRIPTION.splits
    if data.dataset == "mini_context":
        expected = {"train": data.renderer.train, "val": data.renderer.val}
        if not survey_rendering(data, survey):
            survey.counts = dict(expected)
            return survey
    names = list_names(kind, root, expected, survey)
    asked = [task.name for task in chosen_tasks]
    tasks = {split: kind.labels_read(asked, data.crop_by_semseg and split == "train") for split in names}
    every = list(find_jobs(kind, root, names, tasks, survey))
    chosen = draw(len(every), sample)
    if len(chosen) < len(every):
        survey.facts.append(("sample", f"{len(chosen):,} of {len(every):,} images are read, drawn at random"))
    jobs = [every[index] for index in chosen]
    sums: Counter[str] = Counter()
    values: dict[str, list] = {}
    examined = Examined(functools.partial(examine, kind, tuple(data.image_size)), jobs)
    for files, findings in zip(jobs, read_all(examined, workers, progress), strict=True):
        survey.problems += findings.problems
        sums.update(findings.sums)
        for key, value in findings.values.items():
            values.setdefault(key, []).append((value, files.get(key.split()[0], files["image"])[0]))
    summarise(chosen_tasks, sums, values, survey.facts, survey.problems)
    if kind.FROM_CONFIG:
        survey.problems += numbers_outside(survey.problems, kind, root)
    return survey


def survey_images(
    source: str, canvas: Sequence[int], survey: Survey, sample: int | None, workers: int, progress: bool
) -> int:
    """Read the unlabelled images of the distillation, and add what is found to the survey.

    Args:
        source: as of `find_images`.
        canvas: (H, W) of training.
        sample, workers, progress: as of `survey_archive`.

    Returns:
        how many there are.
    """
    try:
        files = find_images(source, keep=False)
    except UserError as error:
        survey.problems.append(Problem("distillation images", "distill", str(error)))
        return 0
    survey.facts.append(
        ("distill", f"{len(files):,} unlabelled images in {printable(source)}{told(files.left_out, before='; ')}")
    )
    chosen = draw(len(files), sample)
    sums: Counter[str] = Counter()
    sides: dict[str, list[float]] = {"height": [], "width": []}
    examined = Examined(functools.partial(examine_unlabelled, canvas), files, chosen)
    for findings in read_all(examined, workers, progress):
        survey.problems += findings.problems
        sums.update(findings.sums)
        for side, value in findings.values.items():
            sides[side] = [min([value, *sides[side]]), max([value, *sides[side]])]
    if sums["images"]:
        sizes = " x ".join(f"{low}..{high}" for low, high in sides.values())
        text = f"{sums['images']:,} read ({describe_modes(sums)}), {sizes} pixels (height x width)"
        survey.facts.append(("distill", text))
    return len(files)


def draw(count: int, sample: int | None) -> list[int]:
    """The indices of so many of `count` images, drawn at random but always the same; of all, if there are no more."""
    if sample is None or sample >= count:
        return list(range(count))
    return sorted(np.random.default_rng(0).choice(count, sample, replace=False).tolist())


def read_all(examined: "Examined", workers: int, progress: bool) -> Iterator[Findings]:
    """What is found in each image, in their order."""
    if not len(examined):
        return
    loader = DataLoader(examined, num_workers=workers, collate_fn=first, worker_init_fn=leave_interrupts)
    with progress_bar(len(loader), "read", shown=progress) as bar:
        for item in loader:
            yield item
            bar.update()


def survey_rendering(data: DataConfig | DictConfig, survey: Survey) -> bool:
    """Whether a finished mini_context lies at the root."""
    from sak.data.mini import archive as mini

    root = Path(os.path.expanduser(data.root))
    try:
        finished = mini.is_finished(root, mini.settings_of(**rendering(data)))
    except UserError as error:
        survey.problems.append(Problem("rendering", "mini_context", str(error)))
        return True
    if not finished:
        asked = data.renderer
        scenes = f"{asked.train} + {asked.val}" + (f" + {asked.unlabelled} unlabelled" if asked.unlabelled else "")
        text = f"not there yet: the first training renders {scenes} scenes into {root}"
        survey.facts.append(("mini_context", text))
    return finished


def list_names(kind: type[Archive], root: Path, expected: Mapping[str, int], survey: Survey) -> dict:
    """{split: its ids}, each once."""
    names = {}
    for split in SPLITS:
        try:
            listed = kind.list_names(root, split)
        except UserError as error:
            survey.problems.append(Problem(getattr(error, "kind", "archive"), split, str(error)))
            continue
        repeated = [name for name, times in Counter(listed).items() if times > 1]
        survey.problems += [Problem("repeated", split, name) for name in repeated]
        if len(listed) != expected.get(split, len(listed)):
            place = kind.LISTS.format(split, split=kind.FOLDERS.get(split, split))
            detail = f"{place} lists {len(listed):,} where {expected[split]:,} are expected"
            survey.problems.append(Problem("count", split, detail))
        known = f", {expected[split]:,} expected" if split in expected else ""
        survey.facts.append((split, f"{len(listed):,} images listed{known}"))
        survey.counts[split] = len(listed)
        names[split] = list(dict.fromkeys(listed))
    shared = sorted(set(names.get("train", ())) & set(names.get("val", ())))
    if kind.shares_images():
        survey.problems += [Problem("overlap", "train and val", name) for name in shared]
    return names


def find_jobs(kind: type[Archive], root: Path, names: dict, tasks: dict, survey: Survey) -> Iterator[dict]:
    """What `examine` reads of each image; missing files are noted once for each task. `tasks` are those of a split."""
    for split, listed in names.items():
        files, missing = kind.find_files(root, split, listed, tasks[split])
        kind_of_problem = "no labels" if kind.FROM_CONFIG else "missing"
        survey.problems += [Problem(kind_of_problem, f"{task}, {split}", file) for task, file in missing]
        if kind.FROM_CONFIG:
            survey.facts += missing_labels(split, files)
        for index in range(len(listed)):
            yield {key: paths[index] for key, paths in files.items()}


class Examined(Dataset):
    """The findings of each image, so that a loader's worker processes share the reading.

    Args:
        examine: finds them in a job.
        chosen: the indices of the jobs that are looked at; None: all.
    """

    def __init__(self, examine: Callable[[Any], Findings], jobs: Sequence, chosen: Sequence[int] | None = None):
        self.examine, self.jobs = examine, jobs
        self.chosen = range(len(jobs)) if chosen is None else chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Findings:
        return self.examine(self.jobs[self.chosen[index]])


def leave_interrupts(_: int) -> None:
    """Ctrl-C reaches the whole process group; the main process alone ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def first(findings: list[Findings]) -> Findings:
    return findings[0]

"""mini_context on disk: an archive in the format of the multi-task release of PASCAL-Context, rendered here.

Beside the release's files it holds `SegmentationObject/ID.png` (instances of objects and clutter, 0 = stuff),
`captions.json` (ID -> sentence), the folder `unlabelled` if it was asked for (`sak.data.mini.unlabelled`) and, written
last, the manifest `mini_context.json`.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from sak.data.mini import unlabelled
from sak.data.mini.annotation import encode_classes, encode_normals, part_annotation, save_mat
from sak.data.mini.classes import CONTEXT_ID, NYU, VOC
from sak.data.mini.drawing import draw
from sak.data.mini.saliency import salient_mask
from sak.data.pascal_part import PART_LABELS, PERSON
from sak.environment import cores
from sak.errors import UserError
from sak.files import write_json, write_text
from sak.locks import one_at_a_time

MANIFEST, RENDERING_MARK = "mini_context.json", ".mini_context_rendering"
FORMAT_VERSION = 2
YEARS = {"train": 2008, "val": 2010}  # ids look like VOC's and do not depend on the splits' sizes
LISTS = {
    "ImageSets/Context/train.txt", "ImageSets/Context/val.txt", "json/context_classes.json", "json/nyu_classes.json",
    "json/pascal_part.json", "captions.json", MANIFEST,
}  # fmt: skip
FOLDERS = {
    "JPEGImages": "jpg", "semseg/VOC12": "png", "semseg/pascal-context": "png", "human_parts": "mat",
    "pascal-context/trainval": "mat", "sal_distill": "png", "normals_distill": "png", "SegmentationObject": "png",
}  # fmt: skip


def scene_id(split: str, index: int) -> str:
    return f"{YEARS[split]}_{index + 1:06d}"


def semseg_folder(index: int) -> str:
    """The release has the classes of a part of the images in one folder, of the others in another."""
    return "semseg/VOC12" if index % 2 == 0 else "semseg/pascal-context"


def write_scene(root: str | Path, seed: int, split: str, index: int, size: int) -> tuple[str, str]:
    """Render one scene and write its files; returns its id and caption."""
    root, name = Path(root), scene_id(split, index)
    scene, rendering, sentence = draw(seed, split, index, size)
    unlabelled.save_jpeg(rendering.image, root / "JPEGImages" / f"{name}.jpg")
    for folder, values in {
        semseg_folder(index): encode_classes(rendering),
        "SegmentationObject": rendering.instances,
        "sal_distill": salient_mask(rendering).astype(np.uint8) * 255,
        "normals_distill": encode_normals(rendering.normals),
    }.items():
        Image.fromarray(values).save(root / folder / f"{name}.png")
    save_mat(root / "pascal-context" / "trainval" / f"{name}.mat", {"LabelMap": rendering.context})
    save_mat(root / "human_parts" / f"{name}.mat", {"anno": part_annotation(name, scene, rendering)})
    return name, sentence


def write_job(job: tuple) -> tuple[str, str]:
    return write_scene(*job)


def ignore_interrupt() -> None:
    """Ctrl-C reaches the whole process group; the main process alone ends the pool, without a traceback of each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Child processes that start inside the block run their linear algebra on one thread."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def written_files(settings: dict[str, int]) -> set[str]:
    """Every file of a finished archive with these settings, of this format or the one before."""
    files = set(LISTS)
    for split in YEARS:
        for index in range(settings[split]):
            others = FOLDERS.keys() - {"semseg/VOC12", "semseg/pascal-context"}
            for folder in (*others, semseg_folder(index)):
                files.add(f"{folder}/{scene_id(split, index)}.{FOLDERS[folder]}")
    if settings.get("unlabelled"):
        files |= {f"unlabelled/{name}" for name in unlabelled.file_names(bool(settings["positives"]))}
    return files


def is_untouched(root: Path, settings: dict[str, int]) -> bool:
    """Whether an archive holds just what the renderer wrote: no other file, none changed since the manifest."""
    present = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_symlink() or not path.is_dir()}
    last = (root / MANIFEST).stat().st_mtime_ns
    return present.keys() == written_files(settings) and all(
        path.stat().st_mtime_ns <= last for path in present.values()
    )


def is_finished(root: Path, settings: dict[str, int]) -> bool:
    """Whether the archive lies at `root`: False if nothing does, or one of an older format that may be rendered anew.

    Unlabelled scenes, or these in pairs, that are there without being asked for are no obstacle.

    Raises:
        UserError: something else lies there: files of others, an archive with other settings, or one of another format
            that is not as it was rendered.
    """
    manifest = root / MANIFEST
    if not manifest.is_file():
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise UserError(f"{root} exists and is no mini_context archive: choose another directory to render to")
        return False
    try:
        found = dict(json.loads(manifest.read_text(encoding="utf-8"))["settings"])
        version, counts = found["format"], [found["train"], found["val"]]
        if not all(isinstance(number, int) for number in (version, *counts)):
            raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{manifest} is no manifest of mini_context: remove {root}, or choose another directory"
        ) from error
    if version < FORMAT_VERSION:
        if is_untouched(root, found):
            return False
        raise UserError(
            f"{root} holds mini_context of the older format {version}, with files that were added, removed or changed "
            "since it was rendered: move it elsewhere, or choose another directory to render to"
        )
    for key, value in settings.items():
        if found.get(key) != value and (value or key not in ("unlabelled", "positives")):
            raise UserError(
                f"{root} holds mini_context with {key}={found.get(key)}, but {key}={value} is asked for: "
                "ask for the same, remove the directory, or choose another one"
            )
    return True


def make_directories(root: Path) -> None:
    """An empty skeleton at `root`; what a killed rendering left there is removed first."""
    if root.exists():
        if any(root.iterdir()) and not any((root / name).exists() for name in (RENDERING_MARK, MANIFEST)):
            raise UserError(f"{root} is in the way and was not made by this renderer: move it elsewhere")
        shutil.rmtree(root)
    root.mkdir(parents=True)
    (root / RENDERING_MARK).touch()
    for name in (*FOLDERS, "ImageSets/Context", "json"):
        (root / name).mkdir(parents=True)


def settings_of(
    train: int, val: int, size: int, seed: int = 0, unlabelled: int = 0, positives: bool = False
) -> dict[str, int]:
    """What the manifest says of an archive, and what another one must agree in to be the same.

    Raises:
        UserError: the numbers make no archive.
    """
    if min(train, val) < 1 or size < 16 or unlabelled < 0:
        raise UserError(
            "mini_context needs train >= 1, val >= 1, unlabelled >= 0 and size >= 16, not "
            f"{train}, {val}, {unlabelled} and {size}"
        )
    if positives and not unlabelled:
        raise UserError("mini_context with positives needs unlabelled scenes that they are of: set unlabelled above 0")
    settings = {"format": FORMAT_VERSION, "train": train, "val": val, "size": size, "seed": seed}
    return {**settings, "unlabelled": unlabelled, "positives": positives}


def ensure(
    root: str | os.PathLike,
    train: int = 1200,
    val: int = 600,
    size: int = 128,
    seed: int = 0,
    unlabelled: int = 0,
    positives: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Return the path of a finished mini_context archive at `root`; render it first if there is none.

    It is rendered to `<root>.partial` and renamed, so a killed rendering is never taken for an archive. One of an older
    format that is as it was rendered makes place for the new one. One process at a time renders to one `root`: another
    waits for it.

    Args:
        train, val, unlabelled: numbers of scenes.
        size: pixels, height = width.
        positives: render each unlabelled scene twice, in other colours and another light, from a little to the side.
        workers: processes (default: one per core), which do not change the result.

    Raises:
        UserError: `root` holds an archive with other settings, or anything else.
    """
    root = Path(os.path.expanduser(root))
    settings = settings_of(train, val, size, seed, unlabelled, positives)
    if is_finished(root, settings):
        return root
    with one_at_a_time(root, f"another process renders into {root}: waiting for it"):
        if not is_finished(root, settings):
            render_archive(root, settings, workers, progress)
    return root


def render_archive(root: Path, settings: dict[str, int], workers: int | None, progress: bool) -> None:
    """Render to `<root>.partial`, and rename it."""
    partial, old = (root.with_name(root.name + suffix) for suffix in (".partial", ".old.partial"))
    shutil.rmtree(old, ignore_errors=True)  # of a rendering that was killed as it took an older format away
    make_directories(partial)
    write_archive(partial, settings, workers or cores(), progress)
    if root.exists() and any(root.iterdir()):  # an older format
        os.replace(root, old)
        shutil.rmtree(old)
    os.replace(partial, root)


def write_archive(root: Path, settings: dict[str, int], workers: int, progress: bool) -> None:
    """Fill an empty skeleton; the manifest comes last."""
    for split in YEARS:
        names = "".join(scene_id(split, i) + "\n" for i in range(settings[split]))
        write_text(root / "ImageSets" / "Context" / f"{split}.txt", names)
    write_json(root / "json" / "context_classes.json", CONTEXT_ID)
    write_json(root / "json" / "nyu_classes.json", list(NYU))
    write_json(root / "json" / "pascal_part.json", {str(PERSON): PART_LABELS})

    seed, size = settings["seed"], settings["size"]
    jobs = [(str(root), seed, split, i, size) for split in YEARS for i in range(settings[split])]
    again = bool(settings["positives"])
    scenes = [(seed, i, size, again) for i in range(settings["unlabelled"])]
    with contextlib.ExitStack() as stack:
        pool = None
        if workers > 1:
            workers = min(workers, len(jobs) + len(scenes))
            with one_thread_each():
                pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(workers, ignore_interrupt))

        def every(function: Callable, jobs: Sequence, what: str) -> Iterable:
            chunk = max(1, min(8, len(jobs) // workers))
            results = map(function, jobs) if pool is None else pool.imap(function, jobs, chunksize=chunk)
            return tqdm(results, f"rendering {what}", len(jobs), disable=not progress, unit="scene")

        write_json(root / "captions.json", dict(every(write_job, jobs, "mini_context")))
        if scenes:
            unlabelled.write(root / "unlabelled", every(unlabelled.render_job, scenes, "unlabelled scenes"), again)
    (root / RENDERING_MARK).unlink()
    write_json(root / MANIFEST, {"settings": settings, "scenes": len(jobs), "classes": list(VOC)})

"""mini_context on disk: an archive in the format of the multi-task release of PASCAL-Context, rendered here.

Beside the release's files it holds `SegmentationObject/ID.png` (instances of objects and clutter, 0 = stuff),
`captions.json` (ID -> sentence) and, written last, the manifest `mini_context.json`.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image
from tqdm import tqdm

from sak.data.mini.caption import caption
from sak.data.mini.classes import CONTEXT_ID, NYU, PART_NAMES, VOC
from sak.data.mini.compose import random_scene
from sak.data.mini.render import Rendering, render
from sak.data.mini.saliency import salient_mask
from sak.data.mini.scene import Scene
from sak.data.pascal_part import PART_LABELS, PERSON
from sak.environment import cores
from sak.errors import UserError
from sak.files import write_json, write_text
from sak.locks import one_at_a_time

MANIFEST, RENDERING_MARK = "mini_context.json", ".mini_context_rendering"
FORMAT_VERSION = 1
SPLITS = ("train", "val")
YEARS = {"train": 2008, "val": 2010}  # ids look like VOC's and do not depend on the splits' sizes
MAIN_SHARE = 0.03  # a scene whose main object covers less of the image is drawn anew
HEADER = b"MATLAB 5.0 MAT-file, mini_context".ljust(116)  # scipy's would hold the time of day


def scene_id(split: str, index: int) -> str:
    return f"{YEARS[split]}_{index + 1:06d}"


def draw(seed: int, split: str, index: int, size: int) -> tuple[Scene, Rendering, str]:
    """Scene, rendering and caption number `index` of a split; depends on nothing else."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    for _ in range(10):
        scene = random_scene(rng, size)
        rendering = render(scene)
        if (rendering.instances == 1).mean() >= MAIN_SHARE:
            break
    return scene, rendering, caption(scene, rendering, rng)


def save_mat(path: Path, content: dict) -> None:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, content, do_compression=True)
    data = buffer.getvalue()
    path.write_bytes(HEADER + data[len(HEADER) :])


def struct_array(records: list[tuple], fields: tuple[str, ...]) -> np.ndarray:
    """A 1 x n MATLAB struct array; 0 x 0 where there is nothing, as in PASCAL-Part."""
    if not records:
        return np.zeros((0, 0))
    array = np.empty((1, len(records)), dtype=[(name, object) for name in fields])
    for i, record in enumerate(records):
        array[0, i] = record
    return array


def part_annotation(name: str, scene: Scene, rendering: Rendering) -> np.ndarray:
    """PASCAL-Part's `anno`: each visible VOC object with its mask, and a person's visible parts with theirs."""
    objects = []
    for i, thing in enumerate(scene.things):
        mask = rendering.instances == i + 1
        if thing.voc_id == 0 or not mask.any():
            continue
        present = np.unique(rendering.part_names[mask]) if thing.voc_id == PERSON else ()
        parts = [(PART_NAMES[k - 1], (mask & (rendering.part_names == k)).astype(np.uint8)) for k in present if k]
        objects.append((thing.voc, thing.voc_id, mask.astype(np.uint8), struct_array(parts, ("part_name", "mask"))))
    return struct_array([(name, struct_array(objects, ("class", "class_ind", "mask", "parts")))], ("imname", "objects"))


def encode_normals(normals: np.ndarray) -> np.ndarray:
    """uint8 v with 2 v / 255 - 1 = normal."""
    return np.clip(np.round((normals + 1) * 127.5), 0, 255).astype(np.uint8)


def write_scene(root: str | Path, seed: int, split: str, index: int, size: int) -> tuple[str, str]:
    """Render one scene and write its files; returns its id and caption."""
    root, name = Path(root), scene_id(split, index)
    scene, rendering, sentence = draw(seed, split, index, size)
    Image.fromarray(rendering.image).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
    semseg = "VOC12" if index % 2 == 0 else "pascal-context"
    Image.fromarray(rendering.semseg).save(root / "semseg" / semseg / f"{name}.png")
    Image.fromarray(rendering.instances).save(root / "SegmentationObject" / f"{name}.png")
    Image.fromarray(salient_mask(rendering).astype(np.uint8) * 255).save(root / "sal_distill" / f"{name}.png")
    Image.fromarray(encode_normals(rendering.normals)).save(root / "normals_distill" / f"{name}.png")
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


def is_finished(root: Path, settings: dict[str, int]) -> bool:
    """Whether the archive lies at `root`; UserError if something else does."""
    manifest = root / MANIFEST
    if not manifest.is_file():
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise UserError(f"{root} exists and is no mini_context archive: choose another directory to render to")
        return False
    try:
        found = dict(json.loads(manifest.read_text(encoding="utf-8"))["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{manifest} is no manifest of mini_context: remove {root}, or choose another directory"
        ) from error
    for key, value in settings.items():
        if found.get(key) != value:
            raise UserError(
                f"{root} holds mini_context with {key}={found.get(key)}, but {key}={value} is asked for: "
                "ask for the same, remove the directory, or choose another one"
            )
    return True


def make_directories(root: Path) -> None:
    """An empty skeleton at `root`; what a killed rendering left there is removed first."""
    if root.exists():
        if any(root.iterdir()) and not (root / RENDERING_MARK).exists():
            raise UserError(f"{root} is in the way and was not made by this renderer: move it elsewhere")
        shutil.rmtree(root)
    root.mkdir(parents=True)
    (root / RENDERING_MARK).touch()
    for name in ("JPEGImages", "ImageSets/Context", "semseg/VOC12", "semseg/pascal-context", "human_parts"):
        (root / name).mkdir(parents=True)
    for name in ("pascal-context/trainval", "sal_distill", "normals_distill", "json", "SegmentationObject"):
        (root / name).mkdir(parents=True)


def ensure(
    root: str | os.PathLike,
    train: int = 1200,
    val: int = 300,
    size: int = 96,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Return the path of a finished mini_context archive at `root`; render it first if there is none.

    train, val: numbers of scenes; size: pixels, height = width; workers: processes (default: one per core), which do
    not change the result. It is rendered to `<root>.partial` and renamed, so a killed rendering is never taken for an
    archive. One process at a time renders to one `root`: another waits for it. Raises UserError if `root` holds an
    archive with other settings, or anything else.
    """
    root = Path(os.path.expanduser(root))
    if min(train, val) < 1 or size < 16:
        raise UserError(f"mini_context needs train >= 1, val >= 1 and size >= 16, not {train}, {val} and {size}")
    settings = {"format": FORMAT_VERSION, "train": train, "val": val, "size": size, "seed": seed}
    if is_finished(root, settings):
        return root
    with one_at_a_time(root, f"another process renders into {root}: waiting for it"):
        if not is_finished(root, settings):
            render_archive(root, settings, workers, progress)
    return root


def render_archive(root: Path, settings: dict[str, int], workers: int | None, progress: bool) -> None:
    """Render to `<root>.partial`, and rename it."""
    partial = root.with_name(root.name + ".partial")
    make_directories(partial)

    counts = {split: settings[split] for split in SPLITS}
    seed, size = settings["seed"], settings["size"]
    for split, count in counts.items():
        names = "".join(scene_id(split, i) + "\n" for i in range(count))
        write_text(partial / "ImageSets" / "Context" / f"{split}.txt", names)
    write_json(partial / "json" / "context_classes.json", CONTEXT_ID)
    write_json(partial / "json" / "nyu_classes.json", list(NYU))
    write_json(partial / "json" / "pascal_part.json", {str(PERSON): PART_LABELS})

    jobs = [(str(partial), seed, split, i, size) for split, count in counts.items() for i in range(count)]
    workers = workers or cores()
    captions = {}
    with contextlib.ExitStack() as stack:
        results: Iterator[tuple[str, str]] = map(write_job, jobs)
        if workers > 1:
            context = multiprocessing.get_context("spawn")
            with one_thread_each():
                pool = stack.enter_context(context.Pool(min(workers, len(jobs)), ignore_interrupt))
            results = pool.imap(write_job, jobs, chunksize=max(1, min(8, len(jobs) // workers)))
        for name, sentence in tqdm(results, "rendering mini_context", len(jobs), disable=not progress, unit="scene"):
            captions[name] = sentence
    write_json(partial / "captions.json", captions)
    (partial / RENDERING_MARK).unlink()
    write_json(partial / MANIFEST, {"settings": settings, "scenes": len(jobs), "classes": list(VOC)})
    os.replace(partial, root)

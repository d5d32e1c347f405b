"""A step of the first stage with the teachers' features from the cache and without, and what their rounding costs.

Legend: B batch, D width of a level, h, w its token grid.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import nn

from benchmarks.apart import alone, in_turn
from benchmarks.paper import IN_TURN, RATIO_HEADER, ratio_rows
from benchmarks.steps import plain_step
from benchmarks.timing import alternate, seconds, table
from sak import config, data
from sak.bundles.build import build_committee, build_labelled, build_student, build_training_set
from sak.data.archive import Archive
from sak.data.images import Images
from sak.data.transforms import finish
from sak.distillation import losses
from sak.distillation.cached_features import CachedFeatures, Views, build_caches
from sak.training import objectives
from sak.training.batches import TrainingBatches
from sak.training.optimizer import adamw
from teachers import Committee
from teachers.cache import DTYPES, allocate

CONFIGS = Path(__file__).parents[2] / "configs"
STEPS = 20  # of the miniature
IMAGES = 64
PAPER_STEPS = 2
PAPER = [  # the paper's ViT-B recipe without its weights and images
    "student.pretrained=false",
    *(f"teachers.{name}.weights=random" for name in ("dinov2", "clip", "sam")),
    "stages.distill.batch_size=1",
]


class Run:
    """A student in the first stage, fed from the cache or by the teachers; it remembers its losses."""

    def __init__(self, settings: DictConfig, committee: nn.Module, dataset: Views, features: objectives.Features):
        torch.manual_seed(settings.seed)
        self.student = build_student(settings, {}, committee.dims)
        objectives.choose_trained_weights(self.student, "distill", distils=True)
        self.optimizer = adamw(self.student, settings.stages.distill.optim)
        self.objective = objectives.distillation(features, settings.stages.distill.loss)
        batches = TrainingBatches(dataset, settings.stages.distill.batch_size, 1, settings.seed, 0, 0, 1)
        self.steps = (finish(batch) for (batch,) in batches.steps(0, 10**6))
        self.losses: list[float] = []

    def step(self) -> None:
        self.learn(next(self.steps))

    def learn(self, batch: dict) -> None:
        self.optimizer.zero_grad()
        total, _ = self.objective(self.student, batch)
        total.backward()
        self.optimizer.step()
        self.losses.append(total.item())


def run() -> str:
    with tempfile.TemporaryDirectory() as folder:
        paper = _paper(Path(folder))  # before this process computes anything: see `apart`
        mini, errors = _miniature(Path(folder)), _errors(Path(folder))
    return f"{mini}\n\n{paper}\n\n{errors}"


def _miniature(folder: Path) -> str:
    settings = _mini_config(folder)
    data.prepare(settings.data)
    batch, (height, width) = settings.stages.distill.batch_size, settings.data.image_size
    return f"The miniature, batches of {batch} images of {height} x {width}:\n\n{_compare(settings, STEPS)}"


def _paper(folder: Path) -> str:
    settings = paper_settings(folder, 2)
    against_plain = in_turn(lambda: _cached_step(settings), lambda: plain_step("distill"), PAPER_STEPS)
    return (
        "The paper's ViT-B recipe (student at 384 x 384, SAM at 1024 x 1024), random weights, batches of one image:\n\n"
        f"{alone(lambda: _compare(settings, PAPER_STEPS))}\n\nAgainst a step of the plain form with its teachers; "
        f"{IN_TURN.format(rounds=PAPER_STEPS)}:\n\n"
        f"{table(RATIO_HEADER, ratio_rows('first stage from the cache', against_plain))}"
    )


def paper_settings(folder: Path, count: int) -> DictConfig:
    """The paper's recipe with so many images of noise, and a cache, in the folder."""
    images = folder / "noise"
    images.mkdir()
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (400, 500, 3), np.uint8)
        Image.fromarray(noise).save(images / f"{number}.jpg")
    places = [f"stages.distill.images={images}", f"cache.path={folder}/paper", "cache.views=1"]
    return config.load(CONFIGS / "sak_pascal.yaml", [*PAPER, *places])


def _compare(settings: DictConfig, steps: int) -> str:
    """The same steps on the same views with teachers and with the cache, which is full, in turn; and their parts."""
    committee, dataset, cached = filled(settings)
    plain = Run(settings, committee, Views(dataset, 1, {}), objectives.of_images(committee))
    stored = Run(settings, committee, Views(dataset, 1, cached.caches), cached)
    times = alternate(stored.step, plain.step, steps)
    difference = max(abs(one - two) / two for one, two in zip(stored.losses, plain.losses, strict=True))

    parts: dict[str, Callable[[], object]] = {
        "load images": lambda: next(plain.steps),
        "load images and records": lambda: next(stored.steps),
        "ask the teachers": lambda: committee(batch["image"]),
        "decode records": lambda: cached(batch),
    }
    batch = next(stored.steps)
    rows = [(name, f"{_median(part, steps) * 1e3:.0f}") for name, part in parts.items()]
    features = cached(batch)
    plain.objective = objectives.distillation(lambda _: features, settings.stages.distill.loss)
    rows.append(("student forward, backward, AdamW", f"{_median(lambda: plain.learn(batch), steps) * 1e3:.0f}"))
    return (
        f"{steps} steps each, in turn: {times.first * 1e3:.0f} ms from the cache, {times.second * 1e3:.0f} ms without, "
        f"{times.median:.2f} times as long ({times.low:.2f} to {times.high:.2f}). "
        f"Losses differ by at most {difference:.1e} of their value.\n\n{table(('part of a step', 'ms'), rows)}"
    )


def filled(settings: DictConfig, device: str = "cpu") -> tuple[Committee, Archive | Images, CachedFeatures]:
    """Teachers on the device, images, and the cache of what the former make of the latter, which is full."""
    torch.manual_seed(settings.seed)
    committee = build_committee(settings).to(device)
    dataset = build_training_set(settings, "distill", lambda: build_labelled(settings))
    caches = build_caches(settings, "distill", dataset.image_files, committee)
    allocate(list(caches.values()), lambda line: None)
    cached = CachedFeatures(committee, caches)
    for batch in _batches(Views(dataset, 1, caches), settings.stages.distill.batch_size):
        cached.complete({**batch, "image": batch["image"].to(device)})
    return committee, dataset, cached


def _cached_step(settings: DictConfig) -> Callable[[], None]:
    committee, dataset, cached = filled(settings)
    return Run(settings, committee, Views(dataset, 1, cached.caches), cached).step


def _errors(folder: Path) -> str:
    """Stored features of the miniature committee against computed ones."""
    settings = _mini_config(folder)
    committee = build_committee(settings)
    dataset = Views(build_training_set(settings, "distill", lambda: build_labelled(settings)), 1, {})
    images = torch.cat([batch["image"] for batch in _batches(dataset, 16)])
    exact = committee(images)
    student = build_student(settings, {}, committee.dims).eval()
    with torch.no_grad():
        paths = student(images, tasks=()).paths
    rows = []
    for dtype in DTYPES:
        caches = build_caches(
            config.load(CONFIGS / "sak_pascal_mini.yaml", [*_mini_places(folder), f"cache.dtype={dtype}"]),
            "distill",
            dataset.dataset.image_files,
            committee,
        )
        for name, cache in caches.items():
            kept = cache.decode(torch.from_numpy(cache.encode(exact[name])))
            relative = [float((k - e).norm() / e.norm()) for k, e in zip(kept, exact[name], strict=True)]
            floor = sum(float(losses.cosine_and_smooth_l1(k, e)) for k, e in zip(kept, exact[name], strict=True))
            with_kept, with_exact = (
                float(losses.total(losses.distillation_terms({name: paths[name]}, {name: features})))
                for features in (kept, exact[name])
            )
            change = abs(with_kept - with_exact) / with_exact
            size = f"{cache.record.itemsize / 1e3:.0f}"
            rows.append((f"{dtype}, {name}", size, f"{max(relative):.1e}", f"{change:.1e}", f"{floor:.1e}"))
    header = ("", "kB an image", "relative error", "change of the loss", "loss of a student that hits the teacher")
    return (
        f"Rounding, on {len(images)} images of the miniature's: the root mean square of the error over that of the "
        "features, at the worst level; and the distillation loss (cos+l1, summed over levels) of a student with random "
        f"weights, and of one whose features are the teacher's own.\n\n{table(header, rows)}"
    )


def _mini_places(folder: Path) -> list[str]:
    return [
        f"data.root={folder}/mini_context",
        f"data.renderer.train={IMAGES}",
        "data.renderer.val=1",
        "data.renderer.unlabelled=0",
        f"cache.path={folder}/mini",
        "cache.views=1",
    ]


def _mini_config(folder: Path) -> DictConfig:
    return config.load(CONFIGS / "sak_pascal_mini.yaml", _mini_places(folder))


def _batches(dataset: Views, size: int) -> Iterator[dict]:
    """All images, in order."""
    starts: Sequence[int] = range(0, len(dataset), size)
    for start in starts:
        yield torch.utils.data.default_collate([dataset[i] for i in range(start, min(start + size, len(dataset)))])


def _median(function: Callable[[], object], rounds: int) -> float:
    return statistics.median(seconds(function) for _ in range(rounds))

"""Boundaries: seconds an image by the kind of map, their growth in edge pixels, and the gap to the reference matcher.

Maps are synthetic, 375 x 500 pixels, the usual size on PASCAL. Legend: H, W image, K thresholds.
"""

import cProfile
import pstats
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from benchmarks.timing import table
from sak.metrics.boundary import boundary_map, evaluate

HEIGHT, WIDTH = 375, 500
MAX_DIST = 0.0075
ROUNDS = 3
FIXTURES = Path(__file__).parents[2] / "tests/fixtures/edge"
REFERENCE_CASES = {
    "a_plain_single_gt": None,
    "d_nms_fork_pascal": "sak",
    "f_nms_upstream_pascal": "invpt",
}
PARTS = {
    "suppression": "suppress_non_maxima",
    "thinning": "thin",
    "edges of the graph": "find_edges",
    "greedy pairs": "match_greedily",
    "augmenting paths": "augment",
}


def regions(rng: np.random.Generator, count: int) -> np.ndarray:
    """A label map (H, W): the cells of `count` random points, their borders made wavy."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    y, x = (axis + 12 * gaussian_filter(rng.standard_normal((HEIGHT, WIDTH)), 8) * 8 for axis in (y, x))
    nearest, labels = np.full((HEIGHT, WIDTH), np.inf), np.zeros((HEIGHT, WIDTH), dtype=np.int32)
    for label, (row, column) in enumerate(rng.random((count, 2)) * (HEIGHT, WIDTH)):
        distance = (y - row) ** 2 + (x - column) ** 2
        labels[distance < nearest] = label
        nearest = np.minimum(nearest, distance)
    return labels


def soft(truth: np.ndarray, rng: np.random.Generator, clutter: float) -> np.ndarray:
    """uint8 (H, W): a network's idea of the truth, blurred, displaced, and with `clutter` of its own."""
    moved = np.roll(truth, (1, -1), axis=(0, 1)) * (0.6 + 0.4 * gaussian_filter(rng.random(truth.shape), 20))
    lines = gaussian_filter(moved.astype(np.float32), 1.5)
    noise = gaussian_filter(rng.standard_normal(truth.shape).astype(np.float32), 2)
    level = lines / lines.max() + clutter * np.abs(noise) / noise.std()
    return (255 * np.clip(level, 0, 1)).astype(np.uint8)


def hard_cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{name: (prediction, truth)}"""
    rng = np.random.default_rng(0)
    few, some, many = (boundary_map(regions(rng, count)) for count in (4, 25, 2000))
    return {
        "easy: 4 regions, hardly any clutter": (soft(few, rng, 0.02), few),
        "typical: 25 regions, clutter": (soft(some, rng, 0.12), some),
        "dense texture: 2,000 regions, clutter": (soft(many, rng, 0.3), many),
        "everything an edge: noise against 2,000 regions": (rng.integers(0, 256, many.shape, dtype=np.uint8), many),
    }


def fastest(prediction: np.ndarray, truth: np.ndarray, nms: str | None) -> float:
    """Seconds of the processor, not of the clock: other programs on the machine do not count."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        evaluate([prediction], [truth], MAX_DIST, nms)
        times.append(time.process_time() - start)
    return min(times)


def shares(prediction: np.ndarray, truth: np.ndarray, nms: str | None) -> list[str]:
    """Of each of PARTS in the time of one image, by a profile."""
    profile = cProfile.Profile()
    profile.runcall(evaluate, [prediction], [truth], MAX_DIST, nms)
    stats = pstats.Stats(profile)
    spent = dict.fromkeys(PARTS.values(), 0.0)
    for (file, _, function), (_, _, _, cumulative, _) in stats.stats.items():
        if "boundary" in file and function in spent:
            spent[function] += cumulative
    return [f"{spent[function] / stats.total_tt:.0%}" for function in PARTS.values()]


def run() -> str:
    cases = hard_cases()
    protocols = ("sak", "invpt", None)
    times, parts = [], []
    with tqdm(total=len(cases) * len(protocols) + 6, desc="boundaries") as progress:
        for name, (prediction, truth) in cases.items():
            row = []
            for nms in protocols:
                row.append(f"{fastest(prediction, truth, nms):.2f}")
                progress.update()
            times.append((name, f"{truth.sum():,}", *row))
            parts.append((f"{name.split(':')[0]}, sak", *shares(prediction, truth, "sak")))
            parts.append((f"{name.split(':')[0]}, none", *shares(prediction, truth, None)))
        growth = list(grow(progress))
    gaps = [(name, *values) for name, values in reference_gaps()]
    return "\n\n".join(
        [
            f"Processor seconds for one image of {HEIGHT} x {WIDTH} on one core, at all thresholds of the protocol (99 "
            f"under `sak` and without suppression, 101 under `invpt`), fastest of {ROUNDS} runs:",
            table(("map", "true pixels", "sak", "invpt", "no suppression"), times),
            "Where the time goes, from a profile (which slows Python code down, so the shares are rough):",
            table(("map, protocol", *PARTS), parts),
            "Growth in edge pixels, protocol `sak`: the typical map with more and more regions:",
            table(("regions", "true pixels", "predicted pixels, first threshold", "seconds", "µs a pixel"), growth),
            "The exact matching against the reference matcher, on the tests' fixtures, in points (hundredths) of odsF; "
            "the reference is random, so its mean over 10 runs and their spread:",
            table(
                (
                    "maps",
                    "exact odsF",
                    "reference odsF, mean",
                    "gap",
                    "gap to single runs",
                    "missed pairs, mean",
                    "most",
                ),
                gaps,
            ),
        ]
    )


def grow(progress: tqdm) -> Iterator[tuple[str, ...]]:
    for count in (2, 10, 50, 250, 1000, 4000):
        rng = np.random.default_rng(1)
        truth = boundary_map(regions(rng, count))
        prediction = soft(truth, rng, 0.12)
        time = fastest(prediction, truth, "sak")
        predicted = int(evaluate([prediction], [truth], MAX_DIST, "sak", thresholds=[0.01]).sum_p[0, 0])
        pixels = predicted + int(truth.sum())
        yield f"{count:,}", f"{truth.sum():,}", f"{predicted:,}", f"{time:.2f}", f"{1e6 * time / pixels:.0f}"
        progress.update()


def reference_gaps() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Of the reference's own suppressed maps, so that matching alone makes the difference."""
    for name, nms in REFERENCE_CASES.items():
        with np.load(FIXTURES / f"{name}.npz", allow_pickle=False) as case:
            exact, runs = 100 * float(case["maxcard_ods_f"]), 100 * case["ods_f_runs"]
            missed = case["maxcard"] - case["cntR_runs"]  # (runs, images, K)
            ours = evaluate(
                [case[f"pred_{i}"] for i in range(int(case["n_images"]))],
                [case[f"gt_{i}"][0].astype(bool) for i in range(int(case["n_images"]))],
                float(case["maxDist"]),
                nms,
            )
            yield (
                f"{name} ({nms or 'none'}; whole pipeline here: {100 * ours.ods_f:.2f})",
                (
                    f"{exact:.2f}",
                    f"{statistics.mean(runs):.2f} ± {runs.std():.2f}",
                    f"{exact - runs.mean():+.2f}",
                    f"{exact - runs.max():+.2f} to {exact - runs.min():+.2f}",
                    f"{missed.mean():.1f}",
                    f"{missed.max()}",
                ),
            )

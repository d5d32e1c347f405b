"""What a student's sources hold, seen without labels: how faithful each path is to its teacher, features of images.

Legend: B batch, D width, D_t teacher width, h,w grid, H,W canvas, N tokens inside of the images, or images.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from sak import tables
from sak.data import loading
from sak.data.archive import Archive
from sak.data.faulty_images import Skips
from sak.data.images import CentreCrops
from sak.data.transforms import margins
from sak.distillation.losses import cosine_similarity, match_grids
from sak.evaluation.evaluate import to_device
from sak.files import replacing, write_json
from sak.plotting import colour_bar, heat_map, save
from sak.progress import progress_bar
from sak.student import Student

Learned = Callable[[Tensor], Mapping[str, Sequence[Tensor]]]  # images -> {teacher: [per level (B, D_t, h, w)]}
Fidelity = dict[str, dict[int, dict[str, float]]]  # {teacher: {block: {what: cosine}}}
BATCH = 16  # images at once


class Sources(nn.Module):
    """What a student's routers mix: the stem and each path, before any aligner."""

    def __init__(self, student: Student):
        super().__init__()
        self.student = student

    @torch.no_grad()
    def forward(self, images: Tensor) -> dict[str, list[Tensor]]:
        """Images (B, 3, H, W) in [0, 1] -> {"student NAME": one (B, D, h, w) per level}."""
        student = self.student
        grid = student.stem.grid(*images.shape[-2:])
        tokens = student.stem((images - student.mean) / student.std)
        sources = {"stem": [tokens[block + 1][:, 1:] for block in student.levels]}
        sources |= {name: path(tokens) for name, path in student.paths.items()}
        return {
            f"student {name}": [level.transpose(1, 2).unflatten(2, grid) for level in levels]
            for name, levels in sources.items()
        }


def tokens_inside(sizes: Sequence[Tensor], grid: Sequence[int], canvas: Sequence[int]) -> Tensor:
    """(B, h, w): the tokens whose centre is in the image, not in the padding.

    Args:
        sizes: heights and widths of the images on their canvas, (B,) each.
    """
    h, w = grid
    y = (torch.arange(h) + 0.5) * canvas[0] / h
    x = (torch.arange(w) + 0.5) * canvas[1] / w
    inside = []
    for size in zip(*(side.tolist() for side in sizes), strict=True):
        top, left = margins(size, canvas)
        rows, columns = (y > top) & (y < top + size[0]), (x > left) & (x < left + size[1])
        inside.append(rows[:, None] & columns)
    return torch.stack(inside)


@dataclass
class Cosines:
    """Between one path's level and its teacher's, image by image.

    Attributes:
        token: per image the mean over its tokens of the cosine of each.
        whole: per image the cosine of the whole maps, flattened: what the published loss sees.
        units: (D_t,) the sum of the teacher's tokens, each of length 1.
        count: N.
    """

    token: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    units: Tensor = field(default_factory=lambda: torch.tensor(0.0))
    count: int = 0

    def update(self, ours: Tensor, theirs: Tensor, inside: Tensor) -> None:
        """Maps (B, D_t, h, w) of path and teacher, and which tokens (B, h, w) are inside of the image."""
        cosine = cosine_similarity(ours, theirs, dim=1)
        for index, chosen in enumerate(inside):
            mine, other = ours[index][:, chosen], theirs[index][:, chosen]
            self.token.append(cosine[index][chosen].mean().item())
            self.whole.append(cosine_similarity(mine.flatten(), other.flatten(), dim=0).item())
            self.units = self.units + F.normalize(other.double(), dim=0).sum(1).cpu()
            self.count += int(chosen.sum())

    @property
    def constant(self) -> float:
        """The best mean cosine per token that one and the same token reaches everywhere: |mean of unit tokens|."""
        return (self.units.norm() / self.count).item()

    def numbers(self) -> dict[str, float]:
        """Mean and standard deviation over the images, and the best constant."""
        return {
            "token": float(np.mean(self.token)),
            "token_spread": float(np.std(self.token)),
            "whole": float(np.mean(self.whole)),
            "whole_spread": float(np.std(self.whole)),
            "constant": self.constant,
        }


@torch.no_grad()
def paths_and_teachers(student: Student, learned: Learned, images: Tensor) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """{teacher: [per level (path, teacher), each (B, D_t, h, w) on its own grid]}"""
    paths = student(images, tasks=()).paths
    return {
        name: [(ours.float(), theirs) for ours, theirs in zip(paths[name], levels, strict=True)]
        for name, levels in learned(images).items()
    }


def compare_with_teachers(
    student: Student,
    learned: Learned,
    dataset: loading.Samples,
    chosen: Sequence[int],
    workers: int,
    device: torch.device,
    batch_size: int = BATCH,
    skips: Skips | None = None,
) -> Fidelity:
    """Cosines of all paths that have a teacher in `learned`, over images of a data set; with a bar.

    Args:
        skips: as of ``loading.load``.
    """
    found: dict[str, list[Cosines]] = {}
    batches = [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
    with progress_bar(len(chosen), "paths and teachers") as progress:
        for batch in loading.load(dataset, batches, workers, skips=skips):
            images = to_device(batch, device)["image"]
            canvas = tuple(images.shape[-2:])
            for name, levels in paths_and_teachers(student, learned, images).items():
                found.setdefault(name, [Cosines() for _ in levels])
                for cosines, (ours, theirs) in zip(found[name], levels, strict=True):
                    ours, theirs = match_grids(ours, theirs)
                    inside = tokens_inside(batch["size"], tuple(ours.shape[-2:]), canvas).to(device)
                    cosines.update(ours, theirs, inside)
            progress.update(len(images))
    return {
        name: {block: cosines.numbers() for block, cosines in zip(student.levels, levels, strict=True)}
        for name, levels in found.items()
    }


def fidelity_figure(fidelity: Fidelity) -> Figure:
    """Teachers x levels: cosine per token, of whole maps, and of the best constant; mean ± spread over images."""
    names, levels = list(fidelity), list(next(iter(fidelity.values())))
    panels = {
        "per token": ("token", "token_spread"),
        "of whole maps": ("whole", "whole_spread"),
        "best constant token": ("constant", None),
    }
    figure = Figure(
        figsize=(1.8 + (0.2 + 0.55 * len(levels)) * len(panels), 1.1 + 0.5 * len(names)), dpi=100, layout="constrained"
    )
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (title, (key, spread)) in zip(axes, panels.items(), strict=True):
        rows = [list(fidelity[name].values()) for name in names]
        values = np.array([[cell[key] for cell in row] for row in rows])
        text = [[f"{cell[key]:.3f}" + (f"\n±{cell[spread]:.3f}" if spread else "") for cell in row] for row in rows]
        heat = heat_map(axis, values, text, names, [f"block {block}" for block in levels], title, limits=(0, 1))
    colour_bar(figure, heat, axes, "cosine, mean ± spread over images")
    return figure


def fidelity_rows(fidelity: Fidelity) -> list[tuple[str, ...]]:
    """A header, and a row per teacher and block."""
    rows: list[tuple[str, ...]] = [("teacher", "block", "per token", "whole map", "best constant")]
    for name, levels in fidelity.items():
        for block, cell in levels.items():
            token = f"{cell['token']:.4f} ±{cell['token_spread']:.4f}"
            whole = f"{cell['whole']:.4f} ±{cell['whole_spread']:.4f}"
            rows.append((name, str(block), token, whole, f"{cell['constant']:.4f}"))
    return rows


def pooled(student: Student, images: Tensor) -> dict[str, Tensor]:
    """Images (B, 3, H, W) in [0, 1] -> {source: (B, D)}: the mean token of the last level of stem and paths."""
    return {name.removeprefix("student "): levels[-1].mean((2, 3)) for name, levels in Sources(student)(images).items()}


def image_features(
    student: Student, batches: Iterable[Mapping], count: int, device: torch.device
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Names and {source: float32 (N, D)} of the images of some batches, `count` in all; with a bar."""
    names: list[str] = []
    found: dict[str, list[Tensor]] = {}
    with progress_bar(count, "features") as progress, torch.no_grad():
        for batch in batches:
            names += batch["name"]
            for source, vectors in pooled(student, to_device(batch, device)["image"]).items():
                found.setdefault(source, []).append(vectors.float().cpu())
            progress.update(len(batch["name"]))
    return names, {source: torch.cat(vectors).numpy() for source, vectors in found.items()}


REPORTED = 1000  # images at most that the report of a run without labels is about


def report(
    student: Student,
    learned: Learned,
    dataset: Archive | CentreCrops,
    folder: Path,
    workers: int,
    device: torch.device,
    skips: Skips | None,
) -> str:
    """What a run without labels leaves of its student: similarity.json and .png, and features.npz in a folder.

    features.npz has `names` (N,) and, for each source of the student, (N, D): the mean token of its last level.

    Returns:
        a paragraph with a table, in Markdown.
    """
    chosen = loading.evenly_spread(len(dataset), REPORTED)
    student.to(device).eval()
    fidelity = compare_with_teachers(student, learned, dataset, chosen, workers, device, BATCH, skips)
    write_json(folder / "similarity.json", {"images": len(chosen), "teachers": fidelity})
    save(fidelity_figure(fidelity), folder / "similarity.png")
    batches = [chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH)]
    loaded = loading.load(dataset, batches, workers, skips=skips)
    names, features = image_features(student, loaded, len(chosen), device)
    with replacing(folder / "features.npz") as partial, open(partial, "wb") as file:
        np.savez(file, names=np.array(names), **features)  # type: ignore[arg-type]  # none is named as an option of savez
    seen = ", which it was trained on too" if isinstance(dataset, CentreCrops) else " of the validation set"
    return "\n".join(
        [
            f"How like its teacher each path is: cosines, mean ± spread over {len(chosen):,} images{seen}. *Best",
            "constant* is one and the same token everywhere. `similarity.json` and `similarity.png` show the same, and",
            "`features.npz` has the mean token of each source for these images.",
            "",
            tables.markdown(fidelity_rows(fidelity)),
        ]
    )

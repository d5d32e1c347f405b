"""How faithful a student's paths are to their teachers: cosines over the validation set, and PCA side by side.

Legend: B batch, D_t teacher width, h,w grid, H,W canvas, N tokens inside of the images, L levels, T teachers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from sak import config as configuration
from sak import data, tables
from sak.data import loading
from sak.distillation.losses import cosine_similarity, match_grids
from sak.errors import UserError
from sak.evaluation.distributed import build_accelerator
from sak.evaluation.evaluate import to_device
from sak.evaluation.subject import check_output
from sak.files import write_json
from sak.plotting import colour_bar, heat_map, save
from sak.progress import progress_bar
from sak.research.similarity.aligners import as_distilled
from sak.research.similarity.features import tokens_inside
from sak.student import Student

SHOWN = 4  # images of the PCA panels
CELL = 1.3  # inches, of each of them
TAILS = (0.02, 0.98)  # quantiles of the teacher's components that the colours span


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


def compare_paths(
    place: str,
    output: Path,
    config_file: str | None = None,
    overrides: Sequence[str] = (),
    limit: int | None = None,
    batch_size: int = 16,
) -> dict[str, object]:
    """Cosines of all paths and levels, and PCA panels, of a run or a bundle.

    Of a run that changed a trained student, only the path that it distilled is compared: the aligners to the other
    teachers are in earlier runs. Where the paths have learned standardised features, these are what they are compared
    with. `output` gets fidelity.json, fidelity.png and pca-block<N>.png.

    Args:
        config_file: with the teachers and the data; None: that of the run.
        overrides: ``key=value`` of the config.
        limit: of the validation images, evenly spread; None: all.

    Raises:
        UserError: the student, its aligners, the teachers or the data cannot be had, or do not fit each other.
    """
    run = Path(place)
    if config_file is None and not (run / "config.yaml").is_file():
        raise UserError(f"{place} is no run with a config.yaml: say with --config which teachers to compare it with")
    config = configuration.load(config_file or run / "config.yaml", overrides)
    check_output(output)
    named = any(override.startswith("data.root=") for override in overrides)
    if named and not Path(config.data.root).is_dir():  # nor is it rendered: whoever names a place means what is there
        raise UserError(f"data.root is {config.data.root}, but there is no such directory")
    student, features, dims = as_distilled(place, config)
    data.prepare(config.data)
    dataset = data.build(config.data, "val", tasks=())
    chosen = loading.evenly_spread(len(dataset), limit)
    count = len(chosen)
    device = build_accelerator().device
    student.to(device).eval()
    features.to(device).eval()

    found = {name: [Cosines() for _ in student.levels] for name in dims}
    batches = [chosen[start : start + batch_size] for start in range(0, count, batch_size)]
    with progress_bar(count, "paths and teachers") as progress:
        for batch in loading.load(dataset, batches, config.data.workers):
            images = to_device(batch, device)["image"]
            canvas = tuple(images.shape[-2:])
            for name, levels in _maps(student, features, images).items():
                for cosines, (ours, theirs) in zip(found[name], levels, strict=True):
                    ours, theirs = match_grids(ours, theirs)
                    inside = tokens_inside(batch["size"], tuple(ours.shape[-2:]), canvas).to(device)
                    cosines.update(ours, theirs, inside)
            progress.update(len(images))

    result = {
        "student": place,
        "images": count,
        "standardised": features.kind,
        "levels": list(student.levels),
        "teachers": {
            name: {
                block: {
                    "token": float(np.mean(cosines.token)),
                    "token_spread": float(np.std(cosines.token)),
                    "whole": float(np.mean(cosines.whole)),
                    "whole_spread": float(np.std(cosines.whole)),
                    "constant": cosines.constant,
                }
                for block, cosines in zip(student.levels, levels, strict=True)
            }
            for name, levels in found.items()
        },
    }
    write_json(output / "fidelity.json", result)
    drawn = {"fidelity": _figure(result)}
    shown = [dataset[index] for index in chosen[:: max(1, count // SHOWN)][:SHOWN]]
    drawn |= _panels(student, features, shown, device)
    for name, figure in drawn.items():
        save(figure, output / f"{name}.png")
    print("\n".join(_console(result)))
    return result


@torch.no_grad()
def _maps(student: Student, features: nn.Module, images: Tensor) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """{teacher: [per level (path, teacher), each (B, D_t, h, w) on its own grid]}"""
    paths = student(images, tasks=()).paths
    return {
        name: [(ours.float(), theirs) for ours, theirs in zip(paths[name], levels, strict=True)]
        for name, levels in features(images).items()
    }


def principal_axes(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (N, D) -> their mean (D,) and the three directions (D, 3) of their largest variance.

    Each direction's sign is the one in which its largest entry is positive, so that colours do not depend on chance.
    """
    mean = tokens.mean(0)
    axes = torch.linalg.svd(tokens - mean, full_matrices=False).Vh[:3].T
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    return mean, axes * signs


def colours(theirs: Tensor, ours: Tensor, inside: Tensor, inside_ours: Tensor) -> tuple[Tensor, Tensor]:
    """Teacher and path in the teacher's basis: both as RGB (B, h, w, 3) in [0, 1], white in the padding.

    Tokens are brought to length 1, which is how a cosine sees them. The basis and the range of the colours are those of
    the teacher's tokens in these images, for both.

    Args:
        theirs, ours: maps (B, D_t, h, w), each on its own grid.
        inside, inside_ours: their tokens in the images, (B, h, w).
    """
    unit = [F.normalize(maps.double(), dim=1).movedim(1, -1) for maps in (theirs, ours)]
    mean, axes = principal_axes(unit[0][inside])
    low, high = torch.quantile((unit[0][inside] - mean) @ axes, torch.tensor(TAILS, dtype=torch.float64), dim=0)
    drawn = []
    for tokens, chosen in zip(unit, (inside, inside_ours), strict=True):
        rgb = (((tokens - mean) @ axes - low) / (high - low)).clamp(0, 1)
        drawn.append(torch.where(chosen[..., None], rgb, 1.0))
    return drawn[0], drawn[1]


def _panels(
    student: Student, features: nn.Module, samples: Sequence[Mapping], device: torch.device
) -> dict[str, Figure]:
    """{"pca-block<N>": a figure of a level}: a row per image; the image, then each teacher and its path."""
    images = torch.stack([sample["image"] for sample in samples])
    sizes = [torch.tensor([sample["size"][side] for sample in samples]) for side in range(2)]
    maps = _maps(student, features, images.to(device))
    canvas, names = tuple(images.shape[-2:]), list(maps)
    drawn = {}
    for level, block in enumerate(student.levels):
        figure = Figure(
            figsize=(CELL * (1 + 2 * len(names)), CELL * 1.12 * len(images) + 0.6), dpi=100, layout="constrained"
        )
        figure.suptitle(f"block {block}: the teacher's three principal components, and the path in them", fontsize=9)
        axes = figure.subplots(len(images), 1 + 2 * len(names), squeeze=False)
        for axis in axes.flat:
            axis.set_xticks([])
            axis.set_yticks([])
        for row, image in enumerate(images):
            axes[row, 0].imshow(image.permute(1, 2, 0).numpy())
        for number, name in enumerate(names):
            ours, theirs = (side.cpu() for side in maps[name][level])
            masks = [tokens_inside(sizes, tuple(side.shape[-2:]), canvas) for side in (theirs, ours)]
            cosines = Cosines()
            matched = match_grids(ours, theirs)
            cosines.update(*matched, tokens_inside(sizes, tuple(matched[0].shape[-2:]), canvas))
            for column, (side, title) in enumerate(
                zip(colours(theirs, ours, *masks), ("teacher", "path"), strict=True)
            ):
                for row, picture in enumerate(side):
                    axis = axes[row, 1 + 2 * number + column]
                    axis.imshow(picture.numpy(), interpolation="nearest")
                    if column:
                        axis.set_xlabel(f"cosine {cosines.token[row]:.3f}", fontsize=7)
                axes[0, 1 + 2 * number + column].set_title(f"{name}: {title}", fontsize=8)
        drawn[f"pca-block{block}"] = figure
    return drawn


def _figure(result: Mapping) -> Figure:
    """Teachers x levels: cosine per token, of whole maps, and of the best constant; mean ± spread over images."""
    names, levels = list(result["teachers"]), result["levels"]
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
        rows = [list(result["teachers"][name].values()) for name in names]
        values = np.array([[cell[key] for cell in row] for row in rows])
        text = [[f"{cell[key]:.3f}" + (f"\n±{cell[spread]:.3f}" if spread else "") for cell in row] for row in rows]
        heat = heat_map(axis, values, text, names, [f"block {block}" for block in levels], title, limits=(0, 1))
    colour_bar(figure, heat, axes, "cosine, mean ± spread over images")
    return figure


def _console(result: Mapping) -> list[str]:
    rows: list[tuple[str, ...]] = [("teacher", "block", "per token", "whole map", "best constant")]
    for name, levels in result["teachers"].items():
        for block, cell in levels.items():
            token = f"{cell['token']:.4f} ±{cell['token_spread']:.4f}"
            whole = f"{cell['whole']:.4f} ±{cell['whole_spread']:.4f}"
            rows.append((name, str(block), token, whole, f"{cell['constant']:.4f}"))
    return [f"cosine of path and teacher, mean ± spread over {result['images']} val images", "", tables.console(rows)]

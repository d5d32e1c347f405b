"""How faithful a student's paths are to their teachers: cosines over the validation set, and PCA side by side.

Legend: B batch, D_t teacher width, h,w grid, H,W canvas, N tokens inside of the images, L levels, T teachers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from sak import config as configuration
from sak import tables
from sak.bundles.build import build_pictures
from sak.data import loading
from sak.distillation.losses import match_grids
from sak.errors import UserError
from sak.evaluation.distributed import build_accelerator
from sak.evaluation.sources import (
    Cosines,
    compare_with_teachers,
    fidelity_figure,
    fidelity_rows,
    paths_and_teachers,
    tokens_inside,
)
from sak.evaluation.subject import check_output
from sak.files import write_json
from sak.plotting import save
from sak.research.similarity.aligners import as_distilled
from sak.student import Student

SHOWN = 4  # images of the PCA panels
CELL = 1.3  # inches, of each of them
TAILS = (0.02, 0.98)  # quantiles of the teacher's components that the colours span


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
        limit: of the validation images (without tasks, of all), evenly spread; None: all.

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
    student, features, _ = as_distilled(place, config)
    dataset = build_pictures(config, "val")
    chosen = loading.evenly_spread(len(dataset), limit)
    count = len(chosen)
    device = build_accelerator().device
    student.to(device).eval()
    features.to(device).eval()

    fidelity = compare_with_teachers(student, features, dataset, chosen, config.data.workers, device, batch_size)
    result = {
        "student": place,
        "images": count,
        "standardised": features.kind,
        "levels": list(student.levels),
        "teachers": fidelity,
    }
    write_json(output / "fidelity.json", result)
    drawn = {"fidelity": fidelity_figure(fidelity)}
    shown = [dataset[index] for index in chosen[:: max(1, count // SHOWN)][:SHOWN]]
    drawn |= _panels(student, features, shown, device)
    for name, figure in drawn.items():
        save(figure, output / f"{name}.png")
    print(f"cosine of path and teacher, mean ± spread over {count} {'val ' if config.data.tasks else ''}images\n")
    print(tables.console(fidelity_rows(fidelity)))
    return result


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
    maps = paths_and_teachers(student, features, images.to(device))
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

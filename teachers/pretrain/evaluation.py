"""What a miniature has learnt of what it was taught, on held-out scenes, beside what needs no learning.

Legend: N scenes, D width, h, w token grid, Q prompts, S side in pixels.
"""

import dataclasses
import textwrap
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from skimage.color import rgb2lab
from skimage.segmentation import flood
from torch import Tensor

from sak.data.mini.classes import CONTEXT_ID
from teachers.base import Teacher
from teachers.pretrain import measures, views
from teachers.pretrain.contrastive import Contrastive
from teachers.pretrain.data import Labelled
from teachers.pretrain.figure import COLUMNS, bars, page
from teachers.pretrain.promptable import SIDE, Promptable, iou, sample_prompts
from teachers.pretrain.supervised import Supervised

SEED = 2024


@dataclasses.dataclass
class Evaluation:
    """`rows`: {measure: percentages in the order of `columns`}, the network's first; `notes` say how."""

    columns: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]
    notes: str
    figure: Figure


def self_distillation(
    teacher: Teacher, panel: measures.Panel, ours: Mapping[str, float], pixels: Mapping[str, float]
) -> Evaluation:
    """The panel's answers, for self-distillation has none of its own."""
    val = panel.scenes[1]
    rows: dict[str, tuple[float, ...]] = {
        question: (ours[question], pixels[question]) for question in pixels if "error" not in question
    }
    columns = ("dinov2", "thumbnail")
    figure, axes, pictures = page("Self-distillation: frozen features on held-out scenes")
    most = 100 * torch.bincount(panel.classes[1]).max().item() / len(val)
    bars(axes, rows, columns, dict.fromkeys((question for question in rows if question.startswith("class")), most))
    (maps,) = measures.features(teacher, val.first(COLUMNS))
    for image, colours, (above, below) in zip(val.images, _principal_colours(maps), pictures, strict=False):
        above.imshow(image.permute(1, 2, 0).numpy())
        below.imshow(colours)
    pictures[0][0].set_ylabel("scene")
    pictures[0][1].set_ylabel("features, PCA")
    notes = f"Classes are the salient objects'. Always answering the most frequent one is right in {most:.1f} %."
    return Evaluation(columns, rows, notes, figure)


def contrastive(objective: Contrastive, train: Labelled, val: Labelled) -> Evaluation:
    """Retrieval among all held-out scenes, both ways; a caption equal to the right one counts as right."""
    texts = objective.texts(val)
    found = objective.pictures(val) @ texts.T
    thumbnails = [measures.thumbnail(scenes, max(measures.THUMBNAILS)) for scenes in (train, val)]
    guess = F.normalize(measures.ridge(thumbnails[0], objective.texts(train), thumbnails[1], penalty=100.0), dim=1)
    same = torch.tensor([[a == b for b in val.captions] for a in val.captions])
    rows = {}
    for direction, scores in (
        ("image to text", (found, guess @ texts.T)),
        ("text to image", (found.T, texts @ guess.T)),
    ):
        for k in (1, 5, 10):
            right = [same.gather(1, each.topk(min(k, len(val)), dim=1).indices).any(1) for each in scores]
            chance = 1 - (1 - same.float().mean(1)).pow(k).mean()
            answers = (*(each.float().mean() for each in right), chance)
            rows[f"{direction}, recall@{k}"] = tuple(100 * answer.item() for answer in answers)
    columns = ("clip", "thumbnail", "chance")
    figure, axes, pictures = page("Contrast of images and captions: retrieval among held-out scenes")
    bars(axes, rows, columns)
    for scene, (best, (above, below)) in enumerate(zip(found.argmax(dim=1).tolist(), pictures, strict=False)):
        above.imshow(val.images[scene].permute(1, 2, 0).numpy())
        caption = textwrap.fill(val.captions[best], 24)
        colour = "#1b7837" if same[scene, best] else "#b2182b"
        below.text(0.5, 0.97, caption, ha="center", va="top", fontsize=6.5, color=colour, transform=below.transAxes)
    pictures[0][0].set_ylabel("scene")
    pictures[0][1].set_ylabel("best caption")
    notes = (
        f"{len(val)} scenes with {len(set(val.captions))} different captions. Thumbnail: least squares from 8 x 8 "
        "pixels to the captions' vectors. In the figure green captions are the scene's own, red ones another scene's. "
        "The text tower is not part of the weights file."
    )
    return Evaluation(columns, rows, notes, figure)


def supervised(objective: Supervised, train: Labelled, val: Labelled) -> Evaluation:
    """Average precision of each class over the held-out scenes, and whether the classes ranked first are there."""
    chosen = objective.classes.cpu()
    truths, learnt = val.things()[:, chosen], train.things()[:, chosen]
    thumbnails = [measures.thumbnail(scenes, max(measures.THUMBNAILS)) for scenes in (train, val)]
    scores = objective.scores(val)
    others = measures.ridge(thumbnails[0], learnt.float(), thumbnails[1], penalty=100.0)
    shown = truths.any(dim=0)
    common = truths.float().mean(dim=0)
    precision = [measures.average_precision(each[:, shown], truths[:, shown]).mean() for each in (scores, others)]
    rows = {"average precision, mean over classes": (*precision, common[shown].mean())}
    for k in (1, 3):
        right = [truths.gather(1, each.topk(k, dim=1).indices).float().mean() for each in (scores, others)]
        most = common.topk(k).values.mean()
        rows["first is right" if k == 1 else f"right among the first {k}"] = (*right, most)
    rows = {measure: tuple(100 * float(value) for value in values) for measure, values in rows.items()}
    columns = ("vit", "thumbnail", "chance")
    figure, axes, pictures = page("Supervised classification: the things in held-out scenes")
    bars(axes, rows, columns)
    names = {number: name for name, number in CONTEXT_ID.items()}
    for scene, (above, below) in enumerate(pictures[: len(val)]):
        above.imshow(val.images[scene].permute(1, 2, 0).numpy())
        for place, column in enumerate(scores[scene].topk(min(4, scores.shape[1])).indices.tolist()):
            number = int(chosen[column])
            colour = "#1b7837" if truths[scene, column] else "#b2182b"
            text = {"ha": "center", "va": "top", "fontsize": 7, "color": colour, "transform": below.transAxes}
            below.text(0.5, 0.97 - 0.2 * place, names.get(number, f"class {number}"), **text)
    pictures[0][0].set_ylabel("scene")
    pictures[0][1].set_ylabel("first classes")
    notes = (
        f"{int(shown.sum())} classes of things that cover at least 1% of some scene; a scene has "
        f"{truths.sum(dim=1).float().mean():.1f} of them. Thumbnail: least squares from 8 x 8 pixels. Chance: ranking "
        "at random, and always answering the most frequent classes. In the figure the classes with the highest scores, "
        "green where the scene has them. The classifier is not part of the weights file."
    )
    return Evaluation(columns, rows, notes, figure)


@torch.no_grad()
def promptable(objective: Promptable, train: Labelled, val: Labelled) -> Evaluation:
    """IoU of masks from one point in a region, against growing a region of similar colour around the point."""
    objective.eval()
    tolerances = (5, 10, 15, 20, 30)
    some = train.first(100)
    fitted = [_grow(some, *_prompts(some), tolerance).mean().item() for tolerance in tolerances]
    tolerance = tolerances[int(np.argmax(fitted))]
    image_of, points, truths = _prompts(val)
    grown = _grow(val, image_of, points, truths, tolerance)
    x, y = ((points - 0.5) / 2).long().T
    is_object = (_small(val.semseg)[image_of, y, x] > 0) & (_small(val.semseg)[image_of, y, x] < 255)
    images, device = views.whole(val.images, SIDE), objective.device
    embeddings = torch.cat([objective.embed(part.to(device)) for part in images.split(25)])
    masks, chosen, best = [], [], []
    for part in torch.arange(len(points)).split(100):
        logits, predicted = objective.segment(embeddings, image_of[part].to(device), points[part].to(device))
        logits, pick = logits.cpu(), predicted.cpu().argmax(dim=1)
        ious = iou(logits > 0, (truths[part] > 0.5).unsqueeze(1).expand_as(logits))
        masks.append(logits[torch.arange(len(part)), pick] > 0)
        chosen.append(ious[torch.arange(len(part)), pick])
        best.append(ious.max(dim=1).values)
    objective.train()
    masks, chosen, best = torch.cat(masks), torch.cat(chosen), torch.cat(best)
    answers = {
        "all regions, mean IoU": (chosen, grown),
        "all regions, best of 3 masks": (best, grown),
        "objects, mean IoU": (chosen[is_object], grown[is_object]),
        "surroundings, mean IoU": (chosen[~is_object], grown[~is_object]),
        "objects, IoU over 50%": ((chosen[is_object] > 0.5).float(), (grown[is_object] > 0.5).float()),
    }
    rows = {measure: tuple(100 * each.mean().item() for each in pair) for measure, pair in answers.items()}
    columns = ("sam", "region growing")
    figure, axes, pictures = page("Promptable masks: one point in a region of a held-out scene")
    bars(axes, rows, columns)
    objects = torch.nonzero(is_object).flatten()
    _, first = np.unique(image_of[objects].numpy(), return_index=True)
    for prompt, (above, below) in zip(objects[first], pictures, strict=False):
        image = views.whole(val.images[image_of[prompt]][None], SIDE // 2)[0].permute(1, 2, 0).numpy()
        above.imshow(image)
        above.plot(*(points[prompt].numpy() / 2), "o", color="#d7191c", markeredgecolor="white", markersize=5)
        below.imshow(np.where(masks[prompt].numpy()[..., None], image, 0.15 * image + 0.85))
        below.contour(truths[prompt].numpy(), levels=[0.5], colors="#1b7837", linewidths=1)
    pictures[0][0].set_ylabel("scene, point")
    pictures[0][1].set_ylabel("mask (truth green)")
    notes = (
        f"{len(points)} points, {int(is_object.sum())} of them on objects of the 20 classes. Of three masks the one "
        "with the highest predicted IoU counts, except for the best of 3. Region growing: connected pixels within a "
        f"distance of {tolerance} in CIELAB, which is the best on scenes of the train split."
    )
    return Evaluation(columns, rows, notes, figure)


def _small(maps: Tensor) -> Tensor:
    """Maps (N,H,W) at the size of masks, int64."""
    size = (SIDE // 2, SIDE // 2)
    return F.interpolate(maps.unsqueeze(1).float(), size=size, mode="nearest")[:, 0].long()


def _prompts(scenes: Labelled) -> tuple[Tensor, Tensor, Tensor]:
    """Up to 4 points in each scene, always the same."""
    return sample_prompts(_small(scenes.regions), 4, torch.Generator().manual_seed(SEED))


def _grow(scenes: Labelled, image_of: Tensor, points: Tensor, truths: Tensor, tolerance: float) -> Tensor:
    """IoU (Q,) of growing each prompt's region by colour."""
    images = views.whole(scenes.images, SIDE // 2).permute(0, 2, 3, 1).numpy()
    colours = [rgb2lab(image) for image in images]
    ious = []
    for number, (x, y), truth in zip(image_of.tolist(), ((points - 0.5) / 2).long().tolist(), truths, strict=True):
        lab = colours[number]
        mask = torch.from_numpy(flood(np.linalg.norm(lab - lab[y, x], axis=-1) <= tolerance, (y, x)))
        ious.append(iou(mask, truth > 0.5))
    return torch.stack(ious)


def _principal_colours(maps: Tensor) -> list[np.ndarray]:
    """Three principal components of the tokens of some maps (n,D,h,w), as colours."""
    tokens = maps.flatten(2).transpose(1, 2).flatten(0, 1)
    tokens = tokens - tokens.mean(0)
    projected = tokens @ torch.linalg.svd(tokens, full_matrices=False).Vh[:3].T
    low, high = projected.quantile(0.02, dim=0), projected.quantile(0.98, dim=0)
    return list(((projected - low) / (high - low)).clamp(0, 1).unflatten(0, (len(maps), *maps.shape[-2:])).numpy())

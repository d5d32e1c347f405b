"""What the miniatures are worth on held-out scenes, each against a baseline that has not learnt.

Legend: N scenes, n classes, D width, h, w token grid, S side in pixels.
"""

import dataclasses
import textwrap
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from skimage.color import rgb2lab
from skimage.segmentation import flood
from torch import Tensor
from torchmetrics.functional.classification import multilabel_average_precision

import teachers
from sak.data.mini.classes import CONTEXT_ID
from teachers.pretrain import data
from teachers.pretrain.contrastive import Contrastive
from teachers.pretrain.figure import COLUMNS, bars, page
from teachers.pretrain.miniatures import IMAGE_SIZE, MINIATURES
from teachers.pretrain.promptable import Promptable, iou, sample_prompts
from teachers.pretrain.supervised import Supervised

CLASSES = 21  # background and PASCAL VOC's 20
SEED = 2024


@dataclasses.dataclass
class Evaluation:
    """Rows are (what was measured, the network's percentage, the baseline's); `notes` say how."""

    rows: list[tuple[str, float, float]]
    baseline: str
    notes: str
    figure: Figure


def self_distillation(weights: str, train: data.Scenes, val: data.Scenes) -> Evaluation:
    """k-NN and linear accuracy for the salient object's class from the class token, and linear segmentation of patches
    from the last block: frozen features of the exported weights, and of an untrained network."""
    columns: list[tuple[float, ...]] = []
    components: list[np.ndarray] = []
    for source in (weights, teachers.base.RANDOM):
        torch.manual_seed(SEED)
        spec = dataclasses.replace(MINIATURES["dinov2"], weights=source)
        teacher = cast(teachers.Teacher, teachers.build("dinov2", spec))  # of one scale
        seen, held = (_tokens(teacher, scenes) for scenes in (train, val))
        components = components or _principal_colours(held[1][:COLUMNS])
        h, w = held[1].shape[-2:]
        seen_class, held_class = train.main_class(), val.main_class()
        seen_patches, held_patches = (_patch_labels(scenes, (h, w)) for scenes in (train, val))
        linear = _linear_probe(seen[0], seen_class, held[0])
        patches = _linear_probe(_flat(seen[1]), seen_patches.flatten(), _flat(held[1]))
        columns.append(
            (
                _accuracy(_nearest_neighbours(seen[0], seen_class, held[0]), held_class),
                _accuracy(linear, held_class),
                _accuracy(patches, held_patches.flatten()),
                _mean_iou(patches, held_patches.flatten()),
            )
        )
    measures = ("class, 20-NN accuracy", "class, linear accuracy", "patches, linear accuracy", "patches, linear mIoU")
    most = 100 * torch.bincount(held_class).max().item() / len(held_class)
    empty = 100 * (held_patches == 0).float().mean().item()
    rows = list(zip(measures, *columns, strict=True))
    figure, axes, pictures = page("Self-distillation: frozen features on held-out scenes")
    bars(axes, rows, "untrained network", dict(zip(measures, (most, most, empty), strict=False)))
    for image, colours, (above, below) in zip(val.images, components, pictures, strict=False):
        above.imshow(image.permute(1, 2, 0).numpy())
        below.imshow(colours)
    pictures[0][0].set_ylabel("scene")
    pictures[0][1].set_ylabel("features, PCA")
    notes = (
        "Classes are the salient objects'; a patch has the most frequent class of its pixels. Always answering the "
        f"most frequent one gives {most:.1f}% of classes and {empty:.1f}% of patches. Probes learn on the train split."
    )
    return Evaluation(rows, "untrained network", notes, figure)


def contrastive(objective: Contrastive, val: data.Scenes) -> Evaluation:
    """Retrieval among all held-out scenes, both ways; a caption equal to the right one counts as right."""
    similarity = objective.similarities(val)
    same = torch.tensor([[a == b for b in val.captions] for a in val.captions])
    rows = []
    for direction, scores in (("image to text", similarity), ("text to image", similarity.T)):
        ranked = same.gather(1, scores.argsort(dim=1, descending=True))
        for k in (1, 5, 10):
            chance = 1 - (1 - same.float().mean(1)).pow(k).mean()
            rows.append(
                (f"{direction}, recall@{k}", 100 * ranked[:, :k].any(1).float().mean().item(), 100 * chance.item())
            )
    figure, axes, pictures = page("Contrast of images and captions: retrieval among held-out scenes")
    bars(axes, rows, "chance")
    for scene, (found, (above, below)) in enumerate(zip(similarity.argmax(dim=1).tolist(), pictures, strict=False)):
        above.imshow(val.images[scene].permute(1, 2, 0).numpy())
        caption = textwrap.fill(val.captions[found], 24)
        colour = "#1b7837" if same[scene, found] else "#b2182b"
        below.text(0.5, 0.97, caption, ha="center", va="top", fontsize=6.5, color=colour, transform=below.transAxes)
    pictures[0][0].set_ylabel("scene")
    pictures[0][1].set_ylabel("best caption")
    notes = (
        f"{len(val)} scenes with {len(set(val.captions))} different captions. In the figure green captions are the "
        "scene's own, red ones another scene's. The text tower is not part of the weights file."
    )
    return Evaluation(rows, "chance", notes, figure)


def supervised(objective: Supervised, val: data.Scenes) -> Evaluation:
    """Average precision of each class over the held-out scenes, and whether the classes ranked first are there."""
    scores, truths = objective.scores(val), val.things[:, objective.classes]
    shown = truths.any(dim=0)
    precision = _average_precision(scores[:, shown], truths[:, shown])
    common = truths.float().mean(dim=0)
    ranked = truths.gather(1, scores.argsort(dim=1, descending=True))
    rows = [("average precision, mean over classes", precision.mean().item(), common[shown].mean().item())]
    for k in (1, 3):
        most = common.topk(min(k, len(common))).values.mean().item()
        rows.append(
            (f"right among the first {k}" if k > 1 else "first is right", ranked[:, :k].float().mean().item(), most)
        )
    rows = [(measure, 100 * ours, 100 * theirs) for measure, ours, theirs in rows]
    figure, axes, pictures = page("Supervised classification: the things in held-out scenes")
    bars(axes, rows, "chance")
    names = {number: name for name, number in CONTEXT_ID.items()}
    for scene, (above, below) in enumerate(pictures[: len(val)]):
        above.imshow(val.images[scene].permute(1, 2, 0).numpy())
        for place, column in enumerate(scores[scene].topk(min(4, scores.shape[1])).indices.tolist()):
            number = int(objective.classes[column])
            colour = "#1b7837" if truths[scene, column] else "#b2182b"
            text = {"ha": "center", "va": "top", "fontsize": 7, "color": colour, "transform": below.transAxes}
            below.text(0.5, 0.97 - 0.2 * place, names.get(number, f"class {number}"), **text)
    pictures[0][0].set_ylabel("scene")
    pictures[0][1].set_ylabel("first classes")
    notes = (
        f"{int(shown.sum())} classes of things that cover at least 1% of some scene; a scene has "
        f"{truths.sum(dim=1).float().mean():.1f} of them. Chance: ranking at random, and always answering the most "
        "frequent classes. In the figure the classes with the highest scores, green where the scene has them. The "
        "classifier is not part of the weights file."
    )
    return Evaluation(rows, "chance", notes, figure)


@torch.no_grad()
def promptable(objective: Promptable, train: data.Scenes, val: data.Scenes) -> Evaluation:
    """IoU of masks from one point in a region, against growing a region of similar colour around the point."""
    objective.eval()
    tolerances = (5, 10, 15, 20, 30)
    fitted = [_grow(train, slice(0, 100), tolerance)[0].mean().item() for tolerance in tolerances]
    tolerance = tolerances[int(np.argmax(fitted))]
    grown, is_object = _grow(val, slice(None), tolerance)
    images, (image_of, points, truths) = data.whole(val.images, IMAGE_SIZE), _prompts(val, slice(None))
    embeddings = torch.cat([objective.embed(part) for part in images.split(100)])
    chosen_masks, chosen, best = [], [], []
    for part in torch.arange(len(points)).split(200):
        logits, predicted = objective.segment(embeddings[image_of[part]], points[part])
        ious = iou(logits > 0, (truths[part] > 0.5).unsqueeze(1).expand_as(logits))
        pick = predicted.argmax(dim=1)
        chosen_masks.append(logits[torch.arange(len(part)), pick] > 0)
        chosen.append(ious[torch.arange(len(part)), pick])
        best.append(ious.max(dim=1).values)
    objective.train()
    masks, chosen, best = torch.cat(chosen_masks), torch.cat(chosen), torch.cat(best)
    rows = [
        ("all regions, mean IoU", chosen, grown),
        ("all regions, best of 3 masks", best, grown),
        ("objects, mean IoU", chosen[is_object], grown[is_object]),
        ("surroundings, mean IoU", chosen[~is_object], grown[~is_object]),
        ("objects, IoU over 50%", (chosen[is_object] > 0.5).float(), (grown[is_object] > 0.5).float()),
    ]
    rows = [(measure, 100 * ours.mean().item(), 100 * theirs.mean().item()) for measure, ours, theirs in rows]
    figure, axes, pictures = page("Promptable masks: one point in a region of a held-out scene")
    bars(axes, rows, "region growing")
    objects = torch.nonzero(is_object).flatten()
    _, first = np.unique(image_of[objects].numpy(), return_index=True)
    for prompt, (above, below) in zip(objects[first], pictures, strict=False):
        image = images[image_of[prompt]].permute(1, 2, 0).numpy()
        above.imshow(image)
        above.plot(*points[prompt].numpy(), "o", color="#d7191c", markeredgecolor="white", markersize=5)
        below.imshow(np.where(masks[prompt].numpy()[..., None], image, 0.15 * image + 0.85))
        below.contour(truths[prompt].numpy(), levels=[0.5], colors="#1b7837", linewidths=1)
    pictures[0][0].set_ylabel("scene, point")
    pictures[0][1].set_ylabel("mask (truth green)")
    notes = (
        f"{len(points)} points, {int(is_object.sum())} of them on objects of the 20 classes. Of three masks the "
        "one with the highest predicted IoU counts, except for the best of 3. Region growing: connected pixels within "
        f"a distance of {tolerance} in CIELAB, which is the best on the train split; plain surfaces favour it."
    )
    return Evaluation(rows, "region growing by colour", notes, figure)


@torch.no_grad()
def _tokens(teacher: teachers.Teacher, scenes: data.Scenes) -> tuple[Tensor, Tensor]:
    """Class tokens (N,D) after the final norm, and the last level's maps (N,D,h,w)."""
    classes, maps = [], []
    for part in scenes.images.split(100):
        inputs = teacher.normalise(data.whole(part, IMAGE_SIZE))
        tokens, last = teacher.backbone.forward_intermediates(inputs, indices=teacher.levels[-1:])
        classes.append(tokens[:, 0])
        maps.extend(last)
    return torch.cat(classes), torch.cat(maps)


def _flat(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2).flatten(0, 1)


def _patch_labels(scenes: data.Scenes, grid: tuple[int, int]) -> Tensor:
    """(N,h,w) the most frequent class of each patch; ignored pixels count as background."""
    labels = scenes.semseg.long() * (scenes.semseg < 255)
    return torch.stack(
        [F.adaptive_avg_pool2d(F.one_hot(label, CLASSES).permute(2, 0, 1).float(), grid).argmax(0) for label in labels]
    )


def _nearest_neighbours(seen: Tensor, labels: Tensor, held: Tensor, k: int = 20) -> Tensor:
    """Weighted vote of the k nearest by cosine (Wu et al., arXiv 1805.01978)."""
    cosine, index = (F.normalize(held, dim=1) @ F.normalize(seen, dim=1).T).topk(min(k, len(seen)), dim=1)
    votes = F.one_hot(labels[index], CLASSES) * (cosine / 0.07).exp().unsqueeze(-1)
    return votes.sum(1).argmax(1)


def _linear_probe(seen: Tensor, labels: Tensor, held: Tensor) -> Tensor:
    """Predictions for `held` of multinomial logistic regression on standardised features: L-BFGS, penalty |w|²/N."""
    mean, std = seen.mean(0), seen.std(0).clamp(min=1e-6)
    seen, held = (seen - mean) / std, (held - mean) / std
    weight = torch.zeros(CLASSES, seen.shape[1], requires_grad=True)
    bias = torch.zeros(CLASSES, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(seen, weight, bias), labels) + weight.square().sum() / len(seen)
        loss.backward()
        return loss

    optimizer.step(closure)
    return F.linear(held, weight, bias).argmax(1)


def _average_precision(scores: Tensor, truths: Tensor) -> Tensor:
    """(C,): of each class (N,C), the mean over its scenes of the precision at their rank."""
    return multilabel_average_precision(scores, truths.long(), num_labels=scores.shape[1], average=None)


def _accuracy(predictions: Tensor, labels: Tensor) -> float:
    return 100 * (predictions == labels).float().mean().item()


def _mean_iou(predictions: Tensor, labels: Tensor) -> float:
    """Over the classes that the labels hold."""
    confusion = torch.bincount(labels * CLASSES + predictions, minlength=CLASSES**2).view(CLASSES, CLASSES).float()
    union = confusion.sum(0) + confusion.sum(1) - confusion.diag()
    return 100 * (confusion.diag() / union.clamp(min=1))[confusion.sum(1) > 0].mean().item()


def _prompts(scenes: data.Scenes, part: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Up to 4 points in each scene of a part, always the same."""
    regions = F.interpolate(scenes.regions[part].unsqueeze(1).float(), size=(IMAGE_SIZE, IMAGE_SIZE), mode="nearest")
    return sample_prompts(regions[:, 0].long(), 4, torch.Generator().manual_seed(SEED))


def _grow(scenes: data.Scenes, part: slice, tolerance: float) -> tuple[Tensor, Tensor]:
    """IoU of growing each prompt's region by colour, and whether its prompt lies on an object (Q,)."""
    image_of, points, truths = _prompts(scenes, part)
    images = data.whole(scenes.images[part], IMAGE_SIZE)
    instances = F.interpolate(scenes.semseg[part].unsqueeze(1).float(), size=(IMAGE_SIZE, IMAGE_SIZE), mode="nearest")
    ious, is_object = [], []
    for number, (x, y), truth in zip(image_of.tolist(), points.int().tolist(), truths, strict=True):
        lab = rgb2lab(images[number].permute(1, 2, 0).numpy())
        mask = torch.from_numpy(flood(np.linalg.norm(lab - lab[y, x], axis=-1) <= tolerance, (y, x)))
        ious.append(iou(mask, truth > 0.5))
        is_object.append(0 < instances[number, 0, y, x] < 255)
    return torch.stack(ious), torch.tensor(is_object)


def _principal_colours(maps: Tensor) -> list[np.ndarray]:
    """Three principal components of the tokens of some maps (n,D,h,w), as colours."""
    tokens = _flat(maps)
    tokens = tokens - tokens.mean(0)
    projected = tokens @ torch.linalg.svd(tokens, full_matrices=False).Vh[:3].T
    low, high = projected.quantile(0.02, dim=0), projected.quantile(0.98, dim=0)
    return list(((projected - low) / (high - low)).clamp(0, 1).unflatten(0, (len(maps), *maps.shape[-2:])).numpy())

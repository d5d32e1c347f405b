"""How well frozen features, or plain pixels, tell what is in a scene.

Legend: N scenes, D width of features, P cells of all scenes, n classes, G = 32 cells a side: of 4 pixels at 128.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision, multilabel_average_precision

from teachers.base import Teacher
from teachers.pretrain import views
from teachers.pretrain.data import Labelled, Scenes
from teachers.pretrain.miniatures import IMAGE_SIZE

CLASSES = 21  # background and PASCAL VOC's 20
GRID = 32
THUMBNAILS = (4, 8)  # pixels a side; the better one counts
MIDDLE = "semseg of a middle block"  # the question to a network that is not asked of pixels
DENSE = 300  # scenes at most, to learn from and to ask of, where each gives a thousand cells


@torch.no_grad()
def features(teacher: Teacher, scenes: Scenes, levels: tuple[int, ...] = (-1,)) -> list[Tensor]:
    """Maps (N,D,h,w) of some of a teacher's levels, for whole scenes."""
    device = teacher.mean.device
    parts = [teacher(views.whole(part, IMAGE_SIZE).to(device)) for part in scenes.images.split(50)]
    return [torch.cat([part[level].cpu() for part in parts]) for level in levels]


@torch.no_grad()
def vectors(teacher: Teacher, scenes: Scenes) -> Tensor:
    """(N,D): what a network says of whole scenes: its class token or image embedding; the mean of SAM's patches."""
    device, found = teacher.mean.device, []
    for part in scenes.images.split(50):
        inputs = teacher.normalise(views.whole(part, IMAGE_SIZE).to(device))
        if hasattr(teacher.backbone, "forward_features"):  # timm's
            found.append(teacher.backbone.forward_features(inputs)[:, 0])
        elif hasattr(teacher.backbone, "conv1"):  # open_clip's
            found.append(teacher.backbone(inputs))
        else:
            found.append(teacher.features(inputs)[-1].mean((2, 3)))
    return torch.cat(found).cpu()


def thumbnail(scenes: Scenes, side: int) -> Tensor:
    """(N,D): the pixels of the scenes at a few pixels a side."""
    return F.adaptive_avg_pool2d(scenes.images.float() / 255, side).flatten(1)


def cells(maps: Tensor) -> Tensor:
    """Maps (N,D,h,w) of any grid at the cells: (P,D)."""
    resized = F.interpolate(maps, size=(GRID, GRID), mode="bilinear", align_corners=False, antialias=True)
    return resized.flatten(2).transpose(1, 2).flatten(0, 1)


def pixels(scenes: Scenes) -> Tensor:
    """(P,D): the pixels, halved, of each cell and of those around it, and its place: what needs no network."""
    halved = F.adaptive_avg_pool2d(views.whole(scenes.images, IMAGE_SIZE), 2 * GRID)
    patches = F.unfold(F.pad(halved, (2,) * 4, mode="replicate"), 6, stride=2)  # (N,D,P/N)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, GRID)] * 2, indexing="ij")
    place = torch.stack([x, y, x * x, y * y]).flatten(1).expand(len(scenes), -1, -1)
    return torch.cat([patches, place], dim=1).transpose(1, 2).flatten(0, 1)


def cell_classes(scenes: Labelled) -> Tensor:
    """(P,) the most frequent class of each cell; ignored pixels count for none, cells of them alone as background."""
    labels = _at_image_size(scenes.semseg)
    shown = F.one_hot(torch.where(labels < 255, labels, CLASSES).long(), CLASSES + 1)[..., :CLASSES]
    return F.adaptive_avg_pool2d(shown.permute(0, 3, 1, 2).float(), GRID).argmax(1).flatten()


def cell_boundaries(scenes: Labelled) -> Tensor:
    """(P,) bool: whether a boundary between two classes of the label map runs through the cell."""
    labels = _at_image_size(scenes.label_map)
    change = torch.zeros_like(labels, dtype=torch.bool)
    change[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    change[:, :, 1:] |= labels[:, :, 1:] != labels[:, :, :-1]
    return F.adaptive_max_pool2d(change.float(), GRID).flatten() > 0


def cell_normals(scenes: Labelled) -> tuple[Tensor, Tensor]:
    """(P,3) mean normals, and (P,) whether there are any: not in the sky."""
    size = (IMAGE_SIZE, IMAGE_SIZE)
    normals = F.interpolate(scenes.normals, size=size, mode="nearest")
    pooled = F.adaptive_avg_pool2d(normals, GRID).flatten(2).transpose(1, 2).flatten(0, 1)
    length = pooled.norm(dim=1)
    return pooled / length.clamp(min=1e-6)[:, None], length > 0.5


def _at_image_size(maps: Tensor) -> Tensor:
    size = (IMAGE_SIZE, IMAGE_SIZE)
    return F.interpolate(maps.unsqueeze(1).float(), size=size, mode="nearest")[:, 0].to(maps.dtype)


def nearest_neighbours(seen: Tensor, labels: Tensor, held: Tensor, k: int = 20) -> Tensor:
    """Weighted vote of the k nearest by cosine (Wu et al., arXiv 1805.01978)."""
    cosine, index = (F.normalize(held, dim=1) @ F.normalize(seen, dim=1).T).topk(min(k, len(seen)), dim=1)
    votes = F.one_hot(labels[index], CLASSES) * (cosine / 0.07).exp().unsqueeze(-1)
    return votes.sum(1).argmax(1)


def linear_probe(seen: Tensor, labels: Tensor, held: Tensor, steps: int = 60) -> Tensor:
    """Predictions for `held` of multinomial logistic regression on standardised features: L-BFGS, penalty |w|²/N."""
    seen, held = standardised(seen, held)
    weight = torch.zeros(CLASSES, seen.shape[1], requires_grad=True)
    bias = torch.zeros(CLASSES, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(seen, weight, bias), labels) + weight.square().sum() / len(seen)
        loss.backward()
        return loss

    optimizer.step(closure)
    return F.linear(held, weight, bias).argmax(1)


def ridge(seen: Tensor, targets: Tensor, held: Tensor, penalty: float = 1.0) -> Tensor:
    """Predictions (P,n) for `held` of linear least squares on standardised features."""
    seen, held = standardised(seen, held)
    mean = targets.mean(0)
    gram = seen.T @ seen + penalty * torch.eye(seen.shape[1])
    return held @ torch.linalg.solve(gram, seen.T @ (targets - mean)) + mean


def standardised(seen: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """Both by the mean and deviation of the former."""
    mean, std = seen.mean(0), seen.std(0).clamp(min=1e-6)
    return (seen - mean) / std, (held - mean) / std


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    return 100 * (predictions == labels).float().mean().item()


def mean_iou(predictions: Tensor, labels: Tensor) -> float:
    """Over the classes that the labels hold."""
    confusion = torch.bincount(labels * CLASSES + predictions, minlength=CLASSES**2).view(CLASSES, CLASSES).float()
    union = confusion.sum(0) + confusion.sum(1) - confusion.diag()
    return 100 * (confusion.diag() / union.clamp(min=1))[confusion.sum(1) > 0].mean().item()


def average_precision(scores: Tensor, truths: Tensor) -> Tensor:
    """(C,): of each class (N,C), the mean over its scenes of the precision at their rank."""
    return multilabel_average_precision(scores, truths.long(), num_labels=scores.shape[1], average=None)


class Panel:
    """The same questions to any frozen features, learnt from some scenes and asked of others.

    Answers are in percent, of normals in degrees. Those of an image need one vector a scene (N,D), those of its cells
    one a cell (P,D); for these the first scenes of each split have to do.
    """

    def __init__(self, train: Labelled, val: Labelled):
        self.scenes = train, val
        self.classes = train.main_class(), val.main_class()
        self.few = train.first(DENSE), val.first(DENSE)
        self.semseg = [cell_classes(scenes) for scenes in self.few]
        self.boundaries = [cell_boundaries(scenes) for scenes in self.few]
        self.normals = [cell_normals(scenes) for scenes in self.few]

    def of_pixels(self) -> dict[str, float]:
        """What thumbnails answer, the best of them, and the pixels about a cell."""
        answers = [self._image(*(thumbnail(scenes, side) for scenes in self.scenes)) for side in THUMBNAILS]
        best = {question: max(answer[question] for answer in answers) for question in answers[0]}
        return best | self._dense(*map(pixels, self.few))

    def image(self, teacher: Teacher) -> dict[str, float]:
        """What a network answers of whole images."""
        return self._image(*(vectors(teacher, scenes) for scenes in self.scenes))

    def of_teacher(self, teacher: Teacher) -> dict[str, float]:
        """What a network answers; of the segmentation also what a block in its middle does."""
        answers = self.image(teacher)
        middle, last = zip(*(features(teacher, scenes, (1, -1)) for scenes in self.few), strict=True)
        answers |= self._dense(*map(cells, last))
        answers[MIDDLE] = self._segmentation(*map(cells, middle))
        return answers

    def _image(self, seen: Tensor, held: Tensor) -> dict[str, float]:
        """Both are centred on the former's mean, which pixels need and networks do not mind."""
        seen, held = seen - seen.mean(0), held - seen.mean(0)
        labels, truth = self.classes
        return {
            "class, 20-NN": accuracy(nearest_neighbours(seen, labels, held), truth),
            "class, linear": accuracy(linear_probe(seen, labels, held), truth),
        }

    def _dense(self, seen: Tensor, held: Tensor) -> dict[str, float]:
        boundary = ridge(seen, self.boundaries[0].float()[:, None], held)[:, 0]
        (normals, there), (truth, shown) = self.normals
        guess = F.normalize(ridge(seen[there], normals[there], held[shown]), dim=1)
        angles = torch.rad2deg((guess * truth[shown]).sum(1).clamp(-1, 1).acos())
        return {
            "semseg, linear mIoU": self._segmentation(seen, held),
            "boundaries, linear AP": 100 * binary_average_precision(boundary, self.boundaries[1].long()).item(),
            "normals, linear error": angles.mean().item(),
        }

    def _segmentation(self, seen: Tensor, held: Tensor) -> float:
        return mean_iou(linear_probe(seen, self.semseg[0], held), self.semseg[1])

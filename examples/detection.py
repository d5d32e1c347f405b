"""A student as the backbone of torchvision's Faster R-CNN, here on coloured rectangles.

python examples/detection.py BUNDLE STEPS
"""

import sys

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

import sak
from sak.student.features_only import FeaturesOnly


class Backbone(nn.Module):
    """All levels, concatenated and narrowed: {"0": (B, 64, h, w)}, as torchvision's detectors take it."""

    out_channels = 64

    def __init__(self, student):
        super().__init__()
        self.features = FeaturesOnly(student, "stem", frozen=True)
        self.narrow = nn.Conv2d(sum(self.features.feature_info.channels()), self.out_channels, 1)

    def forward(self, images):
        return {"0": self.narrow(torch.cat(self.features(images), dim=1))}


def detector(student, classes):
    patch, side = student.stem.patch_size, max(student.image_size)
    anchors = AnchorGenerator(sizes=((2 * patch, 4 * patch),), aspect_ratios=((0.5, 1.0, 2.0),))
    pool = MultiScaleRoIAlign(["0"], output_size=5, sampling_ratio=2)
    # The student normalises by itself, and takes sizes that its patch divides.
    how = {"image_mean": [0, 0, 0], "image_std": [1, 1, 1], "size_divisible": patch, "min_size": side, "max_size": side}
    return FasterRCNN(Backbone(student), classes + 1, rpn_anchor_generator=anchors, box_roi_pool=pool, **how)


def scene(side):
    """A rectangle, red (1) or blue (2), on grey."""
    image, label = torch.full((3, side, side), 0.5), int(torch.randint(1, 3, ()))
    width, height = (int(torch.randint(side // 4, side // 2, ())) for _ in range(2))
    left, top = int(torch.randint(side - width, ())), int(torch.randint(side - height, ()))
    image[:, top : top + height, left : left + width] = torch.eye(3)[2 * label - 2][:, None, None]
    box = torch.tensor([[left, top, left + width, top + height]], dtype=torch.float32)
    return image, {"boxes": box, "labels": torch.tensor([label])}


student = sak.Student.from_pretrained(sys.argv[1])
model = detector(student, classes=2).train()
optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-3)
for step in range(int(sys.argv[2])):
    images, targets = zip(*(scene(max(student.image_size)) for _ in range(4)), strict=True)
    loss = sum(model(list(images), list(targets)).values())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step + 1}: loss {loss.item():.3f}")

"""A linear probe: which classes of pictures can be told apart by one linear map of a student's features.

python examples/linear_probe.py BUNDLE FOLDER SOURCE    # FOLDER/train/CLASS/*.jpg, FOLDER/val/CLASS/*.jpg
"""

import sys

import torch
from torchvision import transforms
from torchvision.datasets import ImageFolder

import sak
from sak.student.features_only import FeaturesOnly

bundle, folder, source = sys.argv[1:4]  # source: stem, a teacher or a task
backbone = FeaturesOnly(sak.Student.from_pretrained(bundle), source, frozen=True)
size = backbone.student.image_size
seen = transforms.Compose([transforms.Resize(min(size)), transforms.CenterCrop(size), transforms.ToTensor()])


def features(split):
    """Means over the picture of all levels, and labels."""
    data = torch.utils.data.DataLoader(ImageFolder(f"{folder}/{split}", seen), batch_size=32)
    pairs = [
        (torch.cat([level.mean(dim=(2, 3)) for level in backbone(images)], dim=1), labels) for images, labels in data
    ]
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])


(x, y), (x_val, y_val) = features("train"), features("val")
mean, std = x.mean(0), x.std(0) + 1e-6
probe = torch.nn.Linear(x.shape[1], int(y.max()) + 1)
optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200)


def loss():
    optimizer.zero_grad()
    value = torch.nn.functional.cross_entropy(probe((x - mean) / std), y) + 1e-3 * probe.weight.square().sum()
    value.backward()
    return value


optimizer.step(loss)
accuracy = (probe((x_val - mean) / std).argmax(1) == y_val).float().mean()
print(f"{source}: {100 * accuracy:.1f} % of {len(y_val)} pictures")

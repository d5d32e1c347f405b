"""Retrieval: the pictures of a folder that are nearest to one, by the cosine of a student's features.

python examples/retrieval.py BUNDLE PICTURE FOLDER SOURCE
"""

import sys
from pathlib import Path

import torch
from PIL import Image
from torchvision import transforms

import sak

bundle, query, folder, source = sys.argv[1:5]  # source: stem, a teacher or a task
student = sak.Student.from_pretrained(bundle).eval()
seen = transforms.Compose([transforms.Resize(student.image_size), transforms.ToTensor()])


@torch.no_grad()
def describe(path):
    """The mean over the picture of the last level, of length 1."""
    last = student.features(seen(Image.open(path).convert("RGB"))[None], source)[-1]
    return torch.nn.functional.normalize(last.mean(dim=(2, 3))[0], dim=0)


paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in {".jpg", ".png"})
cosines = torch.stack([describe(path) for path in paths]) @ describe(query)
for cosine, place in zip(*cosines.topk(min(5, len(paths))), strict=True):
    print(f"{cosine:.3f}  {paths[place]}")

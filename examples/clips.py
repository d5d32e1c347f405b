"""Clips through a frozen image backbone: LoSA with a mixing along time says which way a disc moves.

python examples/clips.py

Every frame shows a bright disc on a dark ground, both of random colours. Frames in no order tell along which line
it goes, but not which way: half of the answers. The backbone sees frames one by one, and once: its features are kept,
and what is trained is the side network with a linear classifier.
"""

import torch
from torch import nn
from torch.nn import functional as F

import teachers
from sak.adaptation import LoSA

FRAMES, SIDE, TURNS = 4, 48, ((0, 1), (0, -1), (1, 0), (-1, 0))  # right, left, down, up
RATE = 0.03
BACKBONE = {
    "family": "dinov2",
    "model": "vit_small_patch14_dinov2",
    "weights": "teachers/mini/dinov2.safetensors",
    "levels": [1, 3],
    "options": {"img_size": 96, "patch_size": 8, "embed_dim": 144, "depth": 8, "num_heads": 3},
}


def clips(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, T, 3, H, W) in [0, 1], and the direction of each (count,); the disc is in view in all frames."""
    draw = torch.Generator().manual_seed(seed)
    way = torch.randint(len(TURNS), (count,), generator=draw)
    speed = 4 + 4 * torch.rand(count, generator=draw)  # pixels a frame
    step = torch.tensor(TURNS)[way] * speed[:, None]
    middle = SIDE / 2 + 8 * (torch.rand(count, 2, generator=draw) - 0.5)
    time = torch.arange(FRAMES) - (FRAMES - 1) / 2
    centre = middle[:, None] + time[:, None] * step[:, None]  # (count, T, 2)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    distance = ((y - centre[..., 0, None, None]) ** 2 + (x - centre[..., 1, None, None]) ** 2).sqrt()
    inside = (6 - distance).clamp(0, 1)[:, :, None]  # of a radius of 6 pixels, with a soft edge
    disc, ground = torch.rand(2, count, 1, 3, 1, 1, generator=draw) * 0.4
    disc = disc + 0.6  # bright on dark
    noise = 0.05 * torch.randn(count, FRAMES, 3, SIDE, SIDE, generator=draw)
    return (inside * disc + (1 - inside) * ground + noise).clamp(0, 1), way


class Classifier(nn.Module):
    """Which way: the mean over all tokens of the last level, and a linear map; ``time`` says whether frames mix."""

    def __init__(self, backbone: teachers.Teacher, time: bool):
        super().__init__()
        self.losa = LoSA(backbone, rank=8, grid=backbone.grid(SIDE, SIDE), frames=FRAMES if time else None)
        self.norm, self.linear = nn.LayerNorm(self.losa.width), nn.Linear(self.losa.width, len(TURNS))

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """What the backbone makes of clips, (B, T, D, h, w) of each level -> (B, directions)."""
        if self.losa.frames is None:  # the same network, with each frame by itself
            refined = self.losa.side([level.flatten(0, 1) for level in maps])[-1].unflatten(0, maps[0].shape[:2])
        else:
            refined = self.losa.side(maps)[-1]
        return self.linear(self.norm(refined.movedim(2, -1)).mean(dim=(1, 2, 3)))


def accuracies(train: int = 256, test: int = 192, steps: int = 150) -> dict[bool, float]:
    """{whether frames mix: share of right answers on clips that were not trained on}."""
    backbone = teachers.build("dinov2", BACKBONE)
    (images, ways), (others, wanted) = clips(train, seed=1), clips(test, seed=2)
    known, unseen = (
        [level.unflatten(0, (-1, FRAMES)) for level in backbone(each.flatten(0, 1))] for each in (images, others)
    )
    found = {}
    for time in (True, False):
        torch.manual_seed(0)
        model = Classifier(backbone, time)
        learned = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(learned, lr=RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
        for _ in range(steps):
            chosen = torch.randint(train, (16,))
            loss = F.cross_entropy(model([level[chosen] for level in known]), ways[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            found[time] = float((model(unseen).argmax(1) == wanted).float().mean())
    return found


if __name__ == "__main__":
    for time, right in accuracies().items():
        print(f"{'with' if time else 'without'} a mixing along time: {right:.0%} of the directions are right")

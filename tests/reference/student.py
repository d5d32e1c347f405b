"""The student exactly as the paper puts it, line by line and with no thought of speed (SAK, arXiv 2410.14633).

It is what the library's student is compared with, number by number in the tests and second by second in the benchmark.
Its weights have the library's names: ``PlainStudent(...).load_state_dict(student.state_dict())``.

Shapes: B batch, N patch tokens, D width, T teachers, S = 1 + T sources, L blocks, H,W image, h,w token grid.
"""

import timm
import torch
from torch import nn
from torch.nn import functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PlainAdapter(nn.Module):
    """A(z) = z + s · W_up GELU(W_down z)"""

    def __init__(self, width, ratio):
        super().__init__()
        self.down, self.up = nn.Linear(width, width // ratio), nn.Linear(width // ratio, width)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, z):
        return z + self.scale * self.up(F.gelu(self.down(z)))


class PlainPath(nn.Module):
    """a_0 = A_0(x_0), a_i = A_i(a_{i-1} + x_i); at a level LayerNorm(a_i without the class token), then the aligner."""

    def __init__(self, width, depth, dims, ratio, norm):
        super().__init__()
        self.adapters = nn.ModuleList(PlainAdapter(width, ratio) for _ in range(depth + 1))
        self.norms = nn.ModuleList(nn.LayerNorm(width) if norm else nn.Identity() for _ in dims)
        self.aligners = nn.ModuleList(nn.Linear(width, d) if d != width else nn.Identity() for d in dims)


class PlainRouter(nn.Module):
    """Means over tokens of logits and raw noise scales, noise for each token, softmax; sources stacked and weighed."""

    def __init__(self, width, sources):
        super().__init__()
        half = width // 2
        self.gate = nn.Sequential(nn.Linear(width, half), nn.LayerNorm(half), nn.GELU(), nn.Linear(half, 2 * sources))

    def forward(self, x, paths):
        (batch, tokens, _), sources = x.shape, 1 + len(paths)
        means = self.gate(x).mean(dim=1)  # (B, 2S)
        logits, raw = means[:, :sources], means[:, sources:]
        logits = logits[:, None].repeat(1, tokens, 1)  # (B, N, S)
        if self.training:
            logits = logits + torch.randn(batch, tokens, sources, dtype=x.dtype) * (F.softplus(raw)[:, None] + 0.01)
        weights = logits.softmax(dim=-1)
        stacked = torch.stack([x, *paths], dim=-1)  # (B, N, D, S)
        return (weights[:, :, None] * stacked).sum(dim=-1), weights.mean(dim=1)


class PlainHead(nn.Module):
    """Every level Linear D -> D/4 and bilinear to (H/4, W/4); concatenated; 3x3 conv, BN, GELU; 1x1 conv; bilinear."""

    def __init__(self, width, levels, channels):
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(width, width // 4) for _ in range(levels))
        self.fuse = nn.Sequential(
            nn.Conv2d(levels * (width // 4), width, 3, padding=1), nn.BatchNorm2d(width), nn.GELU()
        )
        self.classify = nn.Conv2d(width, channels, 1)

    def forward(self, levels, image_size):
        quarter = [side // 4 for side in image_size]
        large = []
        for project, level in zip(self.projections, levels, strict=True):
            projected = project(level.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            large.append(F.interpolate(projected, quarter, mode="bilinear", align_corners=False))
        out = self.classify(self.fuse(torch.cat(large, dim=1)))
        return F.interpolate(out, image_size, mode="bilinear", align_corners=False)


class PlainStudent(nn.Module):
    """
    Args:
        stem: a timm vision transformer and ``options`` of its architecture.
        tasks: {task: channels}; teachers: {teacher: width at each level}.
        path_norm: False for paths without a LayerNorm, which are not the paper's.
    """

    def __init__(self, stem, image_size, tasks, teachers, levels=(2, 5, 8, 11), ratio=4, options=None, path_norm=True):
        super().__init__()
        self.stem = nn.Module()
        self.stem.vit = timm.create_model(
            stem, img_size=tuple(image_size), num_classes=0, global_pool="", **(options or {})
        )
        self.stem.vit.norm = nn.Identity()
        width, depth = self.stem.vit.embed_dim, len(self.stem.vit.blocks)
        self.levels = tuple(levels)
        self.paths = nn.ModuleDict({t: PlainPath(width, depth, dims, ratio, path_norm) for t, dims in teachers.items()})
        self.routers = nn.ModuleDict(
            {task: nn.ModuleList(PlainRouter(width, 1 + len(teachers)) for _ in levels) for task in tasks}
        )
        self.heads = nn.ModuleDict({task: PlainHead(width, len(levels), c) for task, c in tasks.items()})
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def forward(self, images):
        """Images (B,3,H,W) in [0,1] -> predictions {task: (B,C,H,W)}, paths {teacher: [(B,D_t,h,w)]}, routing."""
        vit, size = self.stem.vit, tuple(images.shape[-2:])
        x = vit._pos_embed(vit.patch_embed((images - self.mean) / self.std))
        stem = [x]
        for block in vit.blocks:
            x = block(x)
            stem.append(x)
        grid = [side // vit.patch_embed.patch_size[0] for side in size]

        def as_map(tokens):
            return tokens.transpose(1, 2).reshape(len(tokens), -1, *grid)

        features, aligned = {}, {}
        for teacher, path in self.paths.items():
            a, features[teacher] = path.adapters[0](stem[0]), []
            for block in range(len(vit.blocks)):
                a = path.adapters[block + 1](a + stem[block + 1])
                if block in self.levels:
                    features[teacher].append(path.norms[len(features[teacher])](a[:, 1:]))
            aligned[teacher] = [as_map(align(f)) for align, f in zip(path.aligners, features[teacher], strict=True)]

        predictions, routing = {}, {}
        for task, head in self.heads.items():
            mixed, routing[task] = [], []
            for level, block in enumerate(self.levels):
                sources = [features[teacher][level] for teacher in self.paths]
                mixture, weights = self.routers[task][level](stem[block + 1][:, 1:], sources)
                mixed.append(as_map(mixture))
                routing[task].append(weights)
            predictions[task] = head(mixed, size)
        return predictions, aligned, routing

"""Teachers as their own libraries run them, one image size for all (SAK, arXiv 2410.14633); compare `teachers`.

Shapes: B batch, H,W image, S side of SAM's square, D width, h,w token grid.
"""

import torch
from timm.models.vision_transformer_sam import VisionTransformerSAM, checkpoint_filter_fn
from torch import nn
from torch.nn import functional as F


class PlainTimm(nn.Module):
    """A transformer of timm: outputs of blocks before the final norm, from its own ``forward_intermediates``."""

    def __init__(self, backbone, levels, mean, std):
        super().__init__()
        self.backbone, self.levels = backbone, list(levels)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    @torch.no_grad()
    def forward(self, images):
        """Images (B,3,H,W) in [0,1] -> per level (B,D,h,w); the image is resized to multiples of the patch."""
        patch = self.backbone.patch_embed.patch_size[0]
        size = [int(side / patch + 0.5) * patch for side in images.shape[-2:]]
        images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        images = (images - self.mean) / self.std
        return self.backbone.forward_intermediates(
            images, indices=self.levels, norm=False, output_fmt="NCHW", intermediates_only=True
        )


class PlainSAM(nn.Module):
    """SAM's image encoder as timm runs it, which attends without writing weights down: longer side S, then square.

    The encoder is segment_anything's; timm's blocks share its weights.
    """

    def __init__(self, encoder, levels, mean, std):
        super().__init__()
        self.encoder, self.levels = encoder, list(levels)
        first = encoder.blocks[0]
        windows = [block.window_size for block in encoder.blocks]
        same = VisionTransformerSAM(
            img_size=encoder.img_size,
            patch_size=encoder.patch_embed.proj.kernel_size[0],
            embed_dim=encoder.patch_embed.proj.out_channels,
            depth=len(windows),
            num_heads=first.attn.num_heads,
            mlp_ratio=first.mlp.lin1.out_features / first.mlp.lin1.in_features,
            qkv_bias=first.attn.qkv.bias is not None,
            use_abs_pos=True,
            use_rel_pos=first.attn.use_rel_pos,
            window_size=max(windows),
            global_attn_indexes=[index for index, window in enumerate(windows) if window == 0],
            neck_chans=0,
        ).eval()
        named = {f"image_encoder.{name}": value for name, value in encoder.state_dict().items()}
        found = checkpoint_filter_fn(named, same)
        of_blocks = {name.removeprefix("blocks."): value for name, value in found.items() if name.startswith("blocks.")}
        same.blocks.load_state_dict(of_blocks, assign=True)
        self.blocks = same.blocks
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    @torch.no_grad()
    def forward(self, images):
        """Images (B,3,H,W) in [0,1] -> per level (B,D,h,w), of the part that shows the image."""
        side, patch = self.encoder.img_size, self.encoder.patch_embed.proj.kernel_size[0]
        scale = side / max(images.shape[-2:])
        height, width = (int(length * scale + 0.5) for length in images.shape[-2:])
        images = F.interpolate(images, (height, width), mode="bilinear", align_corners=False, antialias=True)
        images = (images - self.mean) / self.std
        images = F.pad(images, (0, side - width, 0, side - height))
        x = self.encoder.patch_embed(images) + self.encoder.pos_embed
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x[:, : int(height / patch + 0.5), : int(width / patch + 0.5)].permute(0, 3, 1, 2))
        return [features[level] for level in self.levels]

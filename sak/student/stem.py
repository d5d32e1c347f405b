"""The teacher-agnostic stem: a plain vision transformer that hands out its tokens after every block.

Shapes: B batch, N patch tokens, D width, L blocks, H,W image, h,w token grid.
"""

from collections.abc import Sequence
from typing import Any, cast

import timm
import torch
from timm.layers import use_fused_attn
from timm.models import VisionTransformer
from torch import Tensor, nn

from sak.student.recomputation import recomputed

# In bf16 on CPUs, attention written out takes 27 instead of 43 ms a layer, and 74 instead of 130 with its gradient
# (ViT-B, 1,025 tokens, one thread with avx512_bf16): torch's fused kernel hardly uses the faster products. Beyond so
# many tokens its maps of weights, which the fused kernel never holds, would be too large.
WRITTEN_OUT = 2048


class Stem(nn.Module):
    """A timm ViT without its final norm and classifier (SAK, arXiv 2410.14633: TAS).

    Args:
        name: a timm vision transformer with a class token, e.g. ``vit_base_patch16_384.augreg_in21k_ft_in1k``.
        image_size: (H, W) of training, whose grid the position embedding has. Other sizes work too: it is resized on
            the fly.
        options: overrides of timm's architecture (``embed_dim``, ``depth``, ``num_heads``, ``patch_size``, ...).

    Raises:
        ValueError: timm does not know the model or the options, or the image size is not a multiple of the patch.
    """

    def __init__(self, name: str, image_size: Sequence[int], options: dict | None = None):
        super().__init__()
        if not timm.is_model(name):
            raise ValueError(f"stem {name!r} is not a timm model; try timm.list_models('vit_*')")
        arguments = {"num_classes": 0, "global_pool": "", **(options or {})}
        try:
            with torch.device("meta"):  # costs nothing, and tells what the name stands for
                sketch = timm.create_model(name, **arguments)
        except TypeError as error:
            raise ValueError(f"stem {name!r} does not take these options: {error}") from None
        if not isinstance(sketch, VisionTransformer) or sketch.num_prefix_tokens != 1:
            raise ValueError(f"stem {name!r} is not a plain vision transformer with a class token")
        _check_divisible(image_size, sketch.patch_embed.patch_size[0])
        vit = timm.create_model(name, img_size=tuple(image_size), dynamic_img_size=True, **arguments)
        self.vit = cast(VisionTransformer, vit)  # as its sketch is
        self.vit.norm = nn.Identity()
        self.name = name
        self.width: int = self.vit.embed_dim
        self.depth: int = len(self.vit.blocks)
        self.patch_size: int = self.vit.patch_embed.patch_size[0]

    def load_pretrained(self) -> None:
        """Load timm's weights of this model from the hub or its cache, the position embedding resized to ours."""
        self.load_weights(timm.create_model(self.name, pretrained=True, num_classes=0).state_dict())

    def load_weights(self, state: dict[str, Tensor]) -> None:
        """Load a vision transformer's weights in timm's names, strictly, the position embedding resized to ours.

        Its final norm and classifier are left out: levels are read before them.

        Raises:
            ValueError: a name is missing or left over, or a shape does not fit; the first such is named.
        """
        kept = {key: value for key, value in state.items() if not key.startswith(("norm.", "fc_norm.", "head."))}
        own = self.vit.state_dict()
        for keys, problem in ((own.keys() - kept.keys(), "lacks"), (kept.keys() - own.keys(), "holds the unknown")):
            if keys:
                raise ValueError(f"{problem} {min(keys)}")
        weights = timm.models.vision_transformer.checkpoint_filter_fn(kept, self.vit)
        for key, value in own.items():
            if weights[key].shape != value.shape:
                raise ValueError(f"has {key} of shape {tuple(weights[key].shape)}, but this stem {tuple(value.shape)}")
        self.vit.load_state_dict(weights, strict=True)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the position embedding."""
        return tuple(self.vit.patch_embed.img_size)

    def set_image_size(self, image_size: Sequence[int]) -> None:
        """Train on images of another size from here on: the position embedding, a weight, takes that size's grid.

        Resized as timm resizes pretrained ones (bicubic, antialiased); unchanged where the grid is its own already.
        """
        _check_divisible(image_size, self.patch_size)
        height, width = image_size
        self.vit.set_input_size(img_size=(height, width))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of the patch tokens for an image of this size."""
        _check_divisible((height, width), self.patch_size)
        return height // self.patch_size, width // self.patch_size

    def blocks_after(self, block: int) -> Sequence[nn.Module]:
        """Those whose outputs nobody reads, where this one is the last level."""
        return list(self.vit.blocks)[block + 1 :]

    def forward(self, images: Tensor, recompute: bool = False) -> list[Tensor]:
        """Normalised images (B,3,H,W) -> tokens [x_0, ..., x_L], each (B, 1+N, D) with the class token first.

        With ``recompute`` the blocks' activations are not kept for the backward pass.
        """
        self.grid(*images.shape[-2:])
        x = self.vit.norm_pre(self.vit.patch_drop(self.vit._pos_embed(self.vit.patch_embed(images))))
        tokens = [x]
        fused = use_fused_attn() and (x.shape[1] > WRITTEN_OUT or not _in_bf16_on_a_cpu(x))
        block: Any  # timm's
        for block in self.vit.blocks:
            block.attn.fused_attn = fused
            x = recomputed(block, x, of=block) if recompute else block(x)
            tokens.append(x)
        return tokens


def _in_bf16_on_a_cpu(x: Tensor) -> bool:
    kind = x.device.type
    return kind == "cpu" and torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16


def _check_divisible(image_size: Sequence[int], patch: int) -> None:
    height, width = image_size
    if height % patch or width % patch:
        nearest = tuple(max(patch, round(side / patch) * patch) for side in (height, width))
        raise ValueError(
            f"image size {height}x{width} is not divisible by the stem's patch size {patch}; "
            f"the nearest that is: {nearest[0]}x{nearest[1]}"
        )

"""A frozen vision transformer larger than memory: its blocks stay in a memory-mapped file, and one at a time is read.

Shapes: B batch, N patch tokens, D width, L blocks, H,W image, h,w token grid.
"""

import os
from collections.abc import Mapping, Sequence
from typing import cast

import safetensors
import timm
import torch
from safetensors import SafetensorError
from timm.models import VisionTransformer
from torch import Tensor, nn
from torch.func import functional_call

from sak.errors import UserError

LEFT_OUT = ("head.", "fc_norm.", "norm.")  # what follows the blocks: maps are read before


class Streamed(nn.Module):
    """A vision transformer of timm that holds its embedding and, at any time, one of its blocks.

    It has what `LoSA` asks of a backbone: `forward_intermediates`, without a graph. A forward pass reads the file once
    from end to end; what the system keeps of it in its cache is read from there, and can be given up at any time. So
    the time of a pass hardly differs from that of a model in memory once the file is cached, and is that of reading the
    file where it is not. A larger batch shares one reading.

    Args:
        name: a plain vision transformer of timm.
        files: safetensors files that hold, together, its state dict in timm's names.
        dtype: that it computes in; a file of another type is converted block by block.
        options: of timm's architecture.

    Raises:
        UserError: timm has no such transformer, or the files are not its weights: a tensor is missing, left over or of
            another shape.

    Attributes:
        feature_info: as of timm's models.
    """

    def __init__(
        self,
        name: str,
        files: str | os.PathLike | Sequence[str | os.PathLike],
        dtype: torch.dtype = torch.bfloat16,
        options: Mapping | None = None,
    ):
        super().__init__()
        vit = sketch(name, options)
        self.files = _places([files] if isinstance(files, str | os.PathLike) else files)
        self.dtype = dtype
        _check(vit, self.files, name)
        self.patch_size: int = vit.patch_embed.patch_size[0]
        self.feature_info = [{"num_chs": vit.embed_dim, "reduction": self.patch_size} for _ in vit.blocks]
        self._blocks = list(vit.blocks)  # not registered: they never hold a weight
        vit.blocks, vit.norm = nn.Sequential(), nn.Identity()
        outside = {key: tensor.clone() for key, tensor in self._read(list(vit.state_dict())).items()}
        vit.load_state_dict(outside, assign=True)  # copies, so that the file need not stay open
        self.vit = vit
        self.patch_embed = vit.patch_embed
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def forward_intermediates(
        self,
        images: Tensor,
        indices: Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = True,
        intermediates_only: bool = True,
    ) -> list[Tensor]:
        """Normalised images (B,3,H,W) -> a map (B,D,h,w) of each block of `indices`; None: of all.

        Raises:
            UserError: more than the maps before any norm is asked for, or a side is no multiple of the patch.
        """
        if norm or not intermediates_only:
            raise UserError("a streamed transformer gives the maps of its blocks, before any norm, and nothing else")
        if any(side % self.patch_size for side in images.shape[-2:]):
            raise UserError(
                f"images of {' × '.join(map(str, images.shape[-2:]))} pixels are no whole patches of {self.patch_size}"
            )
        wanted = list(range(len(self._blocks)) if indices is None else indices)
        last = max(wanted) if stop_early else len(self._blocks) - 1
        vit, grid = self.vit, [side // self.patch_size for side in images.shape[-2:]]
        x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images.to(self.dtype)))))
        maps = {}
        for index, block in enumerate(self._blocks[: last + 1]):
            names = list(block.state_dict())
            weights = self._read([f"blocks.{index}.{name}" for name in names], x.device)
            x = functional_call(block, dict(zip(names, weights.values(), strict=True)), (x,))
            del weights  # else two blocks would be held while the next one is read
            if index in wanted:
                maps[index] = x[:, vit.num_prefix_tokens :].transpose(1, 2).unflatten(2, grid)
        return [maps[index] for index in wanted]

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B,3,H,W) -> the map (B,D,h,w) of the last block."""
        return self.forward_intermediates(images, [len(self._blocks) - 1])[0]

    def train(self, mode: bool = True) -> "Streamed":
        """It stays in eval mode."""
        return super().train(False)

    def _read(self, names: Sequence[str], device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """Tensors of the files in `dtype`; those that are of it already are views of the mapped file."""
        found = {}
        for file in dict.fromkeys(self.files[name] for name in names):
            with safetensors.safe_open(file, "pt") as content:
                for name in names:
                    if self.files[name] == file:
                        found[name] = content.get_tensor(name).to(device, self.dtype)
        return {name: found[name] for name in names}


def sketch(name: str, options: Mapping | None = None) -> VisionTransformer:
    """The transformer without weights, on torch's device `meta`.

    Raises:
        UserError: timm has no such plain vision transformer.
    """
    if not timm.is_model(name):
        raise UserError(f"{name!r} is no model of timm; try timm.list_models('vit_*')")
    with torch.device("meta"):
        if not isinstance(timm.create_model(name), VisionTransformer):
            raise UserError(f"{name} is no plain vision transformer, whose blocks can be read one after the other")
        try:
            vit = timm.create_model(name, num_classes=0, dynamic_img_size=True, **(options or {}))
        except TypeError as error:
            raise UserError(f"{name} does not take the options {dict(options or {})}: {error}") from error
    return cast(VisionTransformer, vit)


def _places(files: Sequence[str | os.PathLike]) -> dict[str, str]:
    """{tensor: the file that holds it}"""
    places: dict[str, str] = {}
    for file in [os.fspath(file) for file in files]:
        try:
            with safetensors.safe_open(file, "pt") as content:
                names = list(content.keys())
        except FileNotFoundError as error:
            raise UserError(f"there is no file {file} to read weights from; correct its path") from error
        except SafetensorError as error:
            raise UserError(f"{file} is no safetensors file, whose parts can be read alone ({error})") from error
        if twice := [name for name in names if name in places]:
            raise UserError(f"{twice[0]} stands in {places[twice[0]]} and in {file}; give each weight once")
        places |= dict.fromkeys(names, file)
    return places


def _check(vit: VisionTransformer, places: Mapping[str, str], name: str) -> None:
    """Raise a `UserError` unless the files hold the transformer's tensors, in its names and shapes, and no others."""
    shapes = {key: list(tensor.shape) for key, tensor in vit.state_dict().items()}
    needed = {key: shape for key, shape in shapes.items() if not key.startswith(LEFT_OUT)}
    advice = "; give the state dict of timm's model, in its names, and the options that it was made with"
    if missing := [key for key in needed if key not in places]:
        raise UserError(f"the weights of {name} lack {missing[0]}{advice}")
    if strangers := [key for key in places if key not in needed and not key.startswith(LEFT_OUT)]:
        raise UserError(f"the weights hold {strangers[0]}, which {name} does not have{advice}")
    for file in dict.fromkeys(places.values()):
        with safetensors.safe_open(file, "pt") as content:
            for key, place in places.items():
                if place == file and key in needed and content.get_slice(key).get_shape() != needed[key]:
                    shape = content.get_slice(key).get_shape()
                    raise UserError(f"{key} has the shape {shape} in {file}, but {needed[key]} in {name}{advice}")

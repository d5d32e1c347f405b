"""What every teacher shares: how it sees an image, and how it is frozen.

Legend: B batch, H, W image size in pixels, h, w token grid, D width of the teacher's tokens.
"""

import contextlib
import difflib
import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from sak.config.schema import TeacherSpec
from sak.errors import UserError
from teachers.weights import LoadReport

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
RANDOM = "random"  # TeacherSpec.weights: an untrained network, asked for by name
CHOICES = {  # of the fields of a TeacherSpec that every family shares
    "fit": ("resize", "crop"),
    "interpolation": ("bilinear", "bicubic"),
    "input_stats": ("own", "imagenet"),
}


class Teacher(nn.Module):
    """A frozen backbone that turns images in [0, 1] into feature maps, one per level.

    Always in eval mode and without gradients. It resizes and normalises inside, so that one batch of images serves
    every teacher. A family is a subclass: its constructor takes (name, spec), builds a backbone, hands it to this
    one, and it adds `features`; `resized` may be overridden where the backbone's rule of sizes is another.
    `LIBRARIES` names the distributions whose version decides what its backbone computes.

    Args:
        name: the teacher's name in the config.
        backbone: what `features` asks; it is frozen here.
        widths: D of every block or stage of the backbone, of which `spec.levels` chooses.
        strides: pixels per token and side, of every block or stage.
        mean, std: what the backbone's own training normalised RGB in [0, 1] with.
        report: what its weights were loaded from.

    Attributes:
        name, levels, report: as given.
        dims: D of each level.
        strides: of each level.
        patch_size: what sizes are multiples of: the largest of the strides.
        input_size: longer side in pixels of what the backbone sees; None: the image's own.
        mean, std: (1,3,1,1) buffers, outside any checkpoint.

    Raises:
        UserError: the spec's levels, input_size, fit, interpolation, input_stats or dtype do not exist.
    """

    LIBRARIES: tuple[str, ...] = ()
    backbone: Any  # of a class of the family's library
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        spec: TeacherSpec,
        backbone: nn.Module,
        *,
        widths: Sequence[int],
        strides: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        report: LoadReport | None = None,
    ):
        super().__init__()
        levels = list(spec.levels)
        if not levels or levels != sorted(set(levels)) or levels[0] < 0 or levels[-1] >= len(widths):
            raise UserError(
                f"teacher {name}: levels {levels} must be increasing numbers from 0 to {len(widths) - 1}, "
                f"as {spec.model} has {len(widths)} blocks or stages here."
            )
        for field, choices in CHOICES.items():
            if (chosen := getattr(spec, field)) not in choices:
                raise UserError(f"teacher {name}: {field} is {chosen!r}; it can be {' or '.join(map(repr, choices))}.")
        if spec.dtype not in DTYPES:
            raise UserError(f"teacher {name}: dtype is {spec.dtype!r}; it can be {' or '.join(DTYPES)}.")
        if not (spec.input_size in (None, "native") or (isinstance(spec.input_size, int) and spec.input_size > 0)):
            raise UserError(f"teacher {name}: input_size is {spec.input_size!r}; give pixels, 'native' or null.")
        if spec.input_stats == "imagenet":
            mean, std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
        self.name = name
        self.levels = levels
        self.dims = [widths[level] for level in levels]
        self.strides = [strides[level] for level in levels]
        self.patch_size = max(self.strides)
        self.input_size = spec.input_size if isinstance(spec.input_size, int) else None
        self.fit, self.interpolation = spec.fit, spec.interpolation
        self.refuse_crop(self.input_size is not None)
        self.dtype = DTYPES[spec.dtype]
        self.report = report
        self.backbone = backbone.to(self.dtype)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Size in pixels to which an image of (height, width) is resized: multiples of the patch, nearest to the
        image's size or, if `input_size` is given, to the size whose longer side that is. With `fit: crop` the
        multiples that the image holds, to which it is cut.

        Raises:
            UserError: a side would be smaller than one patch.
        """
        scale = 1.0 if self.input_size is None else self.input_size / max(height, width)
        return self._multiple(height * scale), self._multiple(width * scale)

    def tile(self, height: int, width: int) -> tuple[int, int]:
        """Native size in pixels for images of (height, width): the nearest multiples of the patch to `resized`."""
        h, w = self.resized(height, width)
        return self._multiple(h), self._multiple(w)

    def grid(self, height: int, width: int, level: int = 0) -> tuple[int, int]:
        """(h, w) of a level's map for images of (height, width) pixels; `level` counts the entries of `levels`."""
        h, w = self.tile(height, width)
        return h // self.strides[level], w // self.strides[level]

    def refuse_crop(self, has_size: bool) -> None:
        """Raise a `UserError` where images are to be cut, but the backbone sees them at a size of its own."""
        if has_size and self.fit == "crop":
            raise UserError(
                f"teacher {self.name}: fit is 'crop', which is for images at their own size, but they are resized; "
                "set input_size: native, or leave fit out."
            )

    def changes(self, height: int, width: int) -> list[str]:
        """How the features of such images have changed since there are caches; part of the keys of later ones."""
        return []

    def cropped(self, images: Tensor) -> Tensor:
        """Images (B,3,H,W) as they are before any resizing: with `fit: crop` without what fills no patch on the right
        and below."""
        if self.fit != "crop":
            return images
        height, width = (side // self.patch_size * self.patch_size for side in images.shape[-2:])
        return images[..., :height, :width]

    def normalise(self, images: Tensor) -> Tensor:
        """Images (B,3,H,W) in [0,1], cut or resized, and normalised as the backbone expects them."""
        size = self.resized(*images.shape[-2:])
        images = resize(self.cropped(images), size, self.interpolation)
        return (images - self.mean) / self.std

    @torch.no_grad()  # not inference_mode: a loss with gradients takes these features as targets
    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B,3,H,W) in [0,1] -> one float32 (B,D,h,w) map per level: block outputs before any norm or neck."""
        return [level.float() for level in self.features(self.normalise(images).to(self.dtype))]

    def features(self, inputs: Tensor) -> list[Tensor]:
        """Normalised inputs (B,3,H',W') -> one (B,D,h,w) map per level."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> "Teacher":
        """A teacher stays in eval mode, whatever mode the module around it is switched to."""
        return super().train(False)

    def _multiple(self, pixels: float) -> int:
        if pixels + 0.5 < self.patch_size:
            raise UserError(
                f"teacher {self.name}: an image with a side of {pixels:.0f} pixels is smaller than the "
                f"{self.patch_size} of one patch; use larger images or a larger input_size."
            )
        return int(pixels / self.patch_size + (0.5 if self.fit == "resize" else 0)) * self.patch_size


def resize(images: Tensor, size: Sequence[int], mode: str) -> Tensor:
    """Images (B,3,H,W) at another size, without aliasing where they shrink; unchanged at their own size.

    Args:
        mode: "bilinear" or "bicubic".
    """
    old = images.shape[-2:]
    if tuple(old) == tuple(size):
        return images
    # Where an image grows, antialiasing leaves the bilinear kernel as it is, but gives the bicubic another shape.
    antialias = mode == "bilinear" or any(new < side for new, side in zip(size, old, strict=True))
    return F.interpolate(images, size=tuple(size), mode=mode, align_corners=False, antialias=antialias)


def resize_position_embedding(embedding: Tensor, size: tuple[int, int]) -> Tensor:
    """Position embedding (1,D,h,w) at another grid: bicubic, as the libraries do it; unchanged at its own size."""
    if tuple(embedding.shape[-2:]) == tuple(size):
        return embedding
    return F.interpolate(embedding, size=size, mode="bicubic", align_corners=False, antialias=True)


@contextlib.contextmanager
def building(teacher: str, spec: TeacherSpec) -> Iterator[None]:
    """Turn what a library raises over options that it does not know or cannot build into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a library raises whatever an odd value happens to meet
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"teacher {teacher}: options {spec.options} do not suit {spec.model}: {reason}") from error


@contextlib.contextmanager
def drawing(teacher: str) -> Iterator[None]:
    """Random numbers that depend on the teacher's name alone, and leave no trace in those that are drawn afterwards.

    So an untrained teacher is the same network in every training, probe and cache, whatever else is built.
    """
    state = torch.get_rng_state()
    digest = hashlib.sha256(teacher.encode("utf-8", "surrogateescape")).digest()
    # Of the CPU, where networks are built: torch.manual_seed would seed the accelerators too.
    torch.default_generator.manual_seed(int.from_bytes(digest[:7], "big"))
    try:
        yield
    finally:
        torch.set_rng_state(state)


def unknown(what: str, name: str, known: Collection[str]) -> str:
    """The sentence for a name that is not among the known ones: the nearest first, all of them if they are few."""
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    listed = sorted(known) if len(known) <= 12 else nearest
    hint = f"; did you mean {nearest[0]}?" if nearest else "."
    return f"unknown {what} {name!r}{hint}" + (f" Known: {', '.join(listed)}." if listed else "")

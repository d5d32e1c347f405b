"""What every teacher shares: its specification, how it sees an image, and how its weights load.

Legend: B batch, H, W image size in pixels, h, w token grid, D width of the teacher's tokens.
"""

import contextlib
import dataclasses
import difflib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from omegaconf import MISSING
from torch import Tensor, nn

from sak.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RANDOM = "random"  # TeacherSpec.weights: an untrained network, asked for by name


@dataclasses.dataclass
class TeacherSpec:
    """One teacher, as a config describes it.

    Attributes:
        family: a key of `teachers.FAMILIES`.
        model: the architecture's name in the family's library.
        weights: a local file (safetensors or a torch state dict); None: what the library itself downloads or has
            cached; "random": untrained. A relative path is sought in the working directory, then beside this package.
        levels: blocks whose outputs are the features, counted from 0, in increasing order.
        input_size: longer side in pixels of what the backbone sees; None: the image's own size, for SAM the size
            that its encoder was built for.
        input_stats: "own": pixels are normalised as in the teacher's own training; "imagenet": with ImageNet's mean
            and deviation for every teacher, as the published SAK code does.
        scales: more than [1] makes it an S2 teacher that sees the image at each of these scales, its maps concatenated
            on channels (`teachers.multiscale`).
        resize_to: the scale whose grid an S2 teacher's maps get, "first" or "last".
        options: passed on to the architecture.
    """

    family: str = MISSING
    model: str = MISSING
    weights: str | None = None
    levels: list[int] = dataclasses.field(default_factory=lambda: [2, 5, 8, 11])
    input_size: int | None = None
    input_stats: str = "own"
    scales: list[int] = dataclasses.field(default_factory=lambda: [1])
    resize_to: str = "first"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


class Teacher(nn.Module):
    """A frozen backbone that turns images in [0, 1] into feature maps, one per level.

    Always in eval mode and without gradients; a family adds `features`. It normalises and resizes inside, so that
    one batch of images serves every teacher.

    Attributes:
        name: the teacher's name in the config.
        dims: D of each level.
        levels: the spec's.
        strides: pixels of the resized input per token and side, of each level.
        patch_size: what sizes are multiples of: the largest of the strides.
        mean, std: (1,3,1,1) buffers, outside any checkpoint.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        spec: TeacherSpec,
        backbone: nn.Module,
        *,
        width: int,
        depth: int,
        patch_size: int,
        mean: Collection[float],
        std: Collection[float],
    ):
        super().__init__()
        levels = list(spec.levels)
        if not levels or levels != sorted(set(levels)) or levels[0] < 0 or levels[-1] >= depth:
            raise UserError(
                f"teacher {name}: levels {levels} must be increasing block numbers from 0 to {depth - 1}, "
                f"as {spec.model} has {depth} blocks here."
            )
        if spec.input_stats not in ("own", "imagenet"):
            raise UserError(f"teacher {name}: input_stats is {spec.input_stats!r}; it can be 'own' or 'imagenet'.")
        if spec.input_stats == "imagenet":
            mean, std = IMAGENET_MEAN, IMAGENET_STD
        self.name = name
        self.levels = levels
        self.dims = [width] * len(levels)
        self.strides = [patch_size] * len(levels)
        self.patch_size = patch_size
        self.input_size = spec.input_size
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Size in pixels to which an image of (height, width) is resized: multiples of the patch, nearest to the
        image's size or, if `input_size` is given, to the size whose longer side that is."""
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

    def normalise(self, images: Tensor) -> Tensor:
        """Images (B,3,H,W) in [0,1], resized bilinearly and normalised as the backbone expects them."""
        size = self.resized(*images.shape[-2:])
        if size != tuple(images.shape[-2:]):
            # antialias acts on shrinking alone
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
        return (images - self.mean) / self.std

    @torch.no_grad()  # not inference_mode: a loss with gradients takes these features as targets
    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B,3,H,W) in [0,1] -> one (B,D,h,w) map per level: block outputs before any final norm or neck."""
        return self.features(self.normalise(images))

    def features(self, inputs: Tensor) -> list[Tensor]:
        """Normalised inputs (B,3,H',W') -> one (B,D,h,w) map per level."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> "Teacher":
        """A teacher stays in eval mode, whatever mode the module around it is switched to."""
        return super().train(False)

    def _multiple(self, pixels: float) -> int:
        return max(1, int(pixels / self.patch_size + 0.5)) * self.patch_size


def resize_position_embedding(embedding: Tensor, size: tuple[int, int]) -> Tensor:
    """Position embedding (1,D,h,w) at another grid: bicubic, as the libraries do it; unchanged at its own size."""
    if tuple(embedding.shape[-2:]) == tuple(size):
        return embedding
    return F.interpolate(embedding, size=size, mode="bicubic", align_corners=False, antialias=True)


def load_weights(module: nn.Module, path: str, teacher: str, prefix: str = "", leave_out: tuple[str, ...] = ()) -> None:
    """Load the keys of a file that start with `prefix` (cut off) into `module`, strictly.

    `leave_out` names the beginnings of the keys that the file may hold beside them. Any other key that is left
    over, one that is missing and a shape that does not fit raise a `UserError` with the first such keys.
    """
    state = {key: value for key, value in _read(path, teacher).items() if not key.startswith(leave_out)}
    own = {prefix + key: value for key, value in module.state_dict().items()}
    misfits = [f"{key} has shape {tuple(state[key].shape)}, here {tuple(value.shape)}"
               for key, value in own.items() if key in state and state[key].shape != value.shape]  # fmt: skip
    for keys, problem in (
        ([key for key in own if key not in state], "lacks"),
        ([key for key in state if key not in own], "holds unknown"),
        (misfits, "does not fit:"),
    ):
        if keys:
            shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise UserError(f"teacher {teacher}: {path} {problem} {shown}; check model, options and weights.")
    module.load_state_dict({key.removeprefix(prefix): value for key, value in state.items()})


def _read(path: str, teacher: str) -> dict[str, Tensor]:
    places = [Path(path).expanduser(), Path(__file__).parent.parent / path]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise UserError(f"teacher {teacher}: there is no weights file {path}; correct `weights` or put the file there.")
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # every format has its own errors for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"teacher {teacher}: {path} cannot be read as weights ({reason}).") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"teacher {teacher}: {path} is not a flat dict of tensors; save the model's state_dict alone.")
    return state


@contextlib.contextmanager
def building(teacher: str, spec: TeacherSpec) -> Iterator[None]:
    """Turn what a library raises over unknown options, or over a download that fails, into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except (TypeError, AssertionError) as error:
        raise UserError(f"teacher {teacher}: options {spec.options} do not suit {spec.model}: {error}") from error
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"teacher {teacher}: {spec.model} could not be built ({reason}); offline, give a local file as `weights`."
        ) from error


def unknown(what: str, name: str, known: Collection[str]) -> str:
    """The sentence for a name that is not among the known ones: the nearest first, all of them if they are few."""
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    listed = sorted(known) if len(known) <= 12 else nearest
    hint = f"; did you mean {nearest[0]}?" if nearest else "."
    return f"unknown {what} {name!r}{hint}" + (f" Known: {', '.join(listed)}." if listed else "")

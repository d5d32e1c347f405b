"""S2, scaling on scales: a frozen model that looks at an image at several scales, instead of a larger model.

"When do we not need larger vision models?" (arXiv 2403.13043), section 3. `sak.adaptation.S2` is this class, and a
teacher with `scales` is one too (`teachers.multiscale`).

Legend: B batch, H, W image in pixels, S_h, S_w native size in pixels (of the image at scale 1), s scale, R, C rows and
columns of tiles at a scale, D width of the model, h, w its token grid, N tokens, P prefix tokens, n number of scales.
"""

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sak.errors import UserError

Size = int | tuple[int, int]
Levels = Tensor | list[Tensor]


class Look(NamedTuple):
    """How the image is seen at one scale: `rows` × `columns` tiles of `tile` pixels (height, width)."""

    tile: tuple[int, int]
    rows: int
    columns: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels of the whole image at this scale."""
        return self.tile[0] * self.rows, self.tile[1] * self.columns


class S2(nn.Module):
    """A model's features at several scales, brought to one grid and concatenated on channels; no weight is added.

    At scale s the image is resized bicubically to int(s·S_h) × int(s·S_w) pixels and cut into
    R = ceil(int(s·S_h) / S_h) rows and C columns of equal tiles without overlap. The model sees all tiles as one batch,
    its maps are put together again, and area interpolation brings the maps of all scales to the grid of one of them.

    **Images of any shape**: nothing is ever padded. An image is resized to its native size, in which tiles keep its
    proportions; by default that is its own size, at the nearest multiple of `patch_size` on each side. Scales whose
    sizes do not divide into equal tiles of whole patches are refused.

    The wrapper neither freezes the model nor stops gradients: who hands it in does.

    Args:
        model: a module or function from images (b,3,h,w) to maps (b,D,h,w), to tokens (b,P+N,D), or to a list of
            either, one per level.
        scales: increasing positive numbers; 1 is the native size.
        size: native size in pixels, of one side of a square or (height, width); None: the image's own; or a function
            (H, W) -> (height, width), for a model that brings images to that size itself: it is left to do so where the
            whole image is seen at it.
        max_split_size: largest tile in pixels, one number or (height, width); None: the native size. Below it, scale 1
            is cut too.
        split: False: at every scale the model sees the whole image at once, as large as it is there.
        merge: "concat" of the scales' channels, n·D of them in the order of scales, or their "sum", D.
        resize_to: whose grid the maps get, that of the "first" scale or of the "last".
        max_tiles: None, or the dynamic tile grid of NVILA (arXiv 2412.04468): the last scale has the native square
            tiles in R rows and C columns, the grid of (last / first scale)² to `max_tiles` tiles whose aspect C/R is
            nearest to the image's; other scales stay square. `size` must then be one number.
        patch_size: pixels of a token's side; sizes are multiples of it.
        num_prefix_tokens: P of the model's tokens that come first and are no place in the image: their mean over the
            tiles of a scale, then `merge`.
        antialias: where a scale is smaller than the image; False is the published form.

    Raises:
        UserError: an argument is none of these; when called: a scale does not divide, or the model gives something
            else.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Levels],
        scales: Sequence[float] = (1, 2),
        *,
        size: Size | Callable[[int, int], tuple[int, int]] | None = None,
        max_split_size: Size | None = None,
        split: bool = True,
        merge: str = "concat",
        resize_to: str = "first",
        max_tiles: int | None = None,
        patch_size: int = 1,
        num_prefix_tokens: int = 0,
        antialias: bool = False,
    ):
        super().__init__()
        scales = _checked_scales(scales)
        for name, value, known in (
            ("merge", merge, ("concat", "sum")),
            ("resize_to", resize_to, ("first", "last")),
        ):
            if value not in known:
                raise UserError(f"S2: {name} is {value!r}; it can be {' or '.join(map(repr, known))}.")
        if not isinstance(patch_size, int) or patch_size < 1 or num_prefix_tokens < 0:
            raise UserError(
                f"S2: patch_size {patch_size} must be a whole number from 1, num_prefix_tokens {num_prefix_tokens} "
                "one from 0."
            )
        if max_split_size is not None and not split:
            raise UserError("S2: split=False shows the whole image at once, so max_split_size has no meaning.")
        self.least_tiles = int(scales[-1] / scales[0]) ** 2
        if max_tiles is not None:
            if not split or max_split_size is not None or not isinstance(size, int):
                raise UserError(
                    "S2: max_tiles chooses a grid of square tiles: give their side in pixels as size, and leave "
                    "max_split_size and split out."
                )
            if max_tiles < self.least_tiles:
                raise UserError(
                    f"S2: max_tiles is {max_tiles}, but the last of the scales {scales} has at least "
                    f"{self.least_tiles} tiles."
                )
        if not callable(model):
            raise UserError(f"S2: the model is a {type(model).__name__}; give a module or a function of images.")
        self.model = model
        self.scales = scales
        self.size = size if size is None or callable(size) else _pair("size", size)
        self.max_split_size = None if max_split_size is None else _pair("max_split_size", max_split_size)
        self.split, self.merge, self.max_tiles = split, merge, max_tiles
        self.target = 0 if resize_to == "first" else len(scales) - 1
        self.patch_size, self.num_prefix_tokens, self.antialias = patch_size, num_prefix_tokens, antialias

    def native(self, height: int, width: int) -> tuple[int, int]:
        """(S_h, S_w) in pixels for an image of (height, width)."""
        if callable(self.size):
            return self.size(height, width)
        h, w = self.size or (height, width)
        patch = self.patch_size
        return max(1, int(h / patch + 0.5)) * patch, max(1, int(w / patch + 0.5)) * patch

    def looks(self, height: int, width: int) -> list[Look]:
        """How an image of (height, width) pixels is seen at each scale.

        Raises:
            UserError: a scale does not divide.
        """
        native = self.native(height, width)
        if self.max_tiles is None:
            return [self._look(native, scale) for scale in self.scales]
        grid = tile_grid(height, width, self.least_tiles, self.max_tiles, math.prod(native))
        return [*(self._look(native, scale) for scale in self.scales[:-1]), Look(native, *grid)]

    def forward(self, images: Tensor) -> Levels:
        """Images (B,3,H,W) -> what the model gives, of all scales: maps (B, n·D, h, w), tokens (B, P+N, n·D), or a list
        of them; D instead of n·D with `merge="sum"`."""
        looks = self.looks(*images.shape[-2:])
        seen = [self._see(images, look) for look in looks]
        levels = [[output] if isinstance(output, Tensor) else output for output in seen]
        if not all(isinstance(outputs, list | tuple) and outputs for outputs in levels):
            raise UserError(f"S2: the model gives {type(seen[0]).__name__}; {FORMS}.")
        merged = [self._merged(level, looks) for level in zip(*levels, strict=True)]
        return merged[0] if isinstance(seen[0], Tensor) else merged

    def _look(self, native: tuple[int, int], scale: float) -> Look:
        size = int(scale * native[0]), int(scale * native[1])
        most = (self.max_split_size or native) if self.split else size
        rows, columns = (max(1, math.ceil(side / limit)) for side, limit in zip(size, most, strict=True))
        # Without a patch size a tile is whole pixels, which is all that is known.
        if 0 in size or size[0] % (rows * self.patch_size) or size[1] % (columns * self.patch_size):
            pixels = f"patches of {self.patch_size} pixels" if self.patch_size > 1 else "pixels"
            raise UserError(
                f"S2: scale {scale:g} of {native[0]} × {native[1]} pixels is {size[0]} × {size[1]}, which does not "
                f"divide into {rows} × {columns} equal tiles of whole {pixels}: choose other scales, or another size."
            )
        return Look((size[0] // rows, size[1] // columns), rows, columns)

    def _see(self, images: Tensor, look: Look) -> Levels:
        """What the model makes of all tiles of a scale, as one batch: image by image, row by row."""
        whole = look.rows == look.columns == 1
        if whole and callable(self.size) and look.tile == self.native(*images.shape[-2:]):
            return self.model(images)
        return self.model(cut(resized(images, look.size, self.antialias), (look.rows, look.columns)))

    def _merged(self, outputs: Sequence[Tensor], looks: Sequence[Look]) -> Tensor:
        """One level's output on the tiles of each scale -> that level of the image."""
        if not all(isinstance(output, Tensor) and output.ndim in (3, 4) for output in outputs):
            first = tuple(outputs[0].shape) if isinstance(outputs[0], Tensor) else type(outputs[0]).__name__
            raise UserError(f"S2: the model gives {first}; {FORMS}.")
        prefixes, maps = [], []
        for output, look in zip(outputs, looks, strict=True):
            tiles = output
            if output.ndim == 3:
                prefix, patches = output.tensor_split([self.num_prefix_tokens], dim=1)
                prefixes.append(prefix.unflatten(0, (-1, look.rows * look.columns)).mean(1))
                tiles = patches.transpose(1, 2).unflatten(2, self._grid(patches.shape[1], look.tile))
            maps.append(stitch(tiles, (look.rows, look.columns)))
        grid = maps[self.target].shape[-2:]
        merged = self._joined([_area(level, grid) for level in maps], dim=1)
        if not prefixes:
            return merged
        return torch.cat([self._joined(prefixes, dim=2), merged.flatten(2).transpose(1, 2)], dim=1)

    def _joined(self, parts: Sequence[Tensor], dim: int) -> Tensor:
        return torch.cat(list(parts), dim) if self.merge == "concat" else torch.stack(list(parts)).sum(0)

    def _grid(self, count: int, tile: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of N tokens of a tile, which have its proportions."""
        rows = max(1, round(math.sqrt(count * tile[0] / tile[1])))
        grid = rows, count // rows
        if count == 0 or count % rows or not _is_grid_of(tile, grid):
            raise UserError(
                f"S2: {count} tokens of a tile of {tile[0]} × {tile[1]} pixels, without {self.num_prefix_tokens} "
                "prefix tokens, are no grid of its proportions; correct num_prefix_tokens."
            )
        return grid


def _is_grid_of(tile: tuple[int, int], grid: tuple[int, int]) -> bool:
    """Whether one size of square patches makes the grid of the tile, with what fills no patch left out or padded."""
    sides = list(zip(tile, grid, strict=True))
    left_out = max(side / (count + 1) for side, count in sides) < min(side / count for side, count in sides)
    at_most = min(side / (count - 1) if count > 1 else math.inf for side, count in sides)
    return left_out or max(side / count for side, count in sides) < at_most


FORMS = "it must give maps (B,D,h,w), tokens (B,N,D), or a list of them"


def tile_grid(height: int, width: int, least: int, most: int, tile: int) -> tuple[int, int]:
    """(rows, columns) of NVILA's dynamic grid: `least` to `most` tiles, their aspect nearest to the image's.

    Of grids that are equally near the largest whose pixels the image has more than half of, else the smallest.

    Args:
        height, width: of the image in pixels.
        tile: pixels of a tile.
    """
    grids = [(rows, columns) for rows in range(1, most + 1) for columns in range(1, most // rows + 1)]
    grids = [grid for grid in grids if math.prod(grid) >= least]
    distance = {(rows, columns): abs(width / height - columns / rows) for rows, columns in grids}
    nearest = sorted((grid for grid in grids if distance[grid] == min(distance.values())), key=math.prod)
    filled = [grid for grid in nearest if 2 * height * width > math.prod(grid) * tile]
    return filled[-1] if filled else nearest[0]


def resized(images: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    """Images (B,3,H,W) at another size, bicubically and in float32; unchanged at their own.

    Args:
        antialias: where a side shrinks. Where none does it would give the bicubic kernel another shape.
    """
    old = images.shape[-2:]
    if tuple(old) == tuple(size):
        return images
    shrinks = any(new < side for new, side in zip(size, old, strict=True))
    antialias = antialias and shrinks
    return F.interpolate(images.float(), size=size, mode="bicubic", antialias=antialias).to(images.dtype)


def cut(images: Tensor, parts: Size) -> Tensor:
    """(B, D, R·h, C·w) -> (B·R·C, D, h, w): the tiles of each image, row by row.

    Args:
        parts: R and C, or one number for both.
    """
    rows, columns = _both(parts)
    tiles = images.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))  # (B, D, R, h, C, w)
    return tiles.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def stitch(tiles: Tensor, parts: Size) -> Tensor:
    """(B·R·C, D, h, w) -> (B, D, R·h, C·w): the inverse of `cut`."""
    maps = tiles.unflatten(0, (-1, *_both(parts)))  # (B, R, C, D, h, w)
    return maps.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def _area(maps: Tensor, grid: Sequence[int]) -> Tensor:
    return F.interpolate(maps.float(), size=tuple(grid), mode="area").to(maps.dtype)


def _both(value: Size) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _pair(name: str, value: Size) -> tuple[int, int]:
    sides = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, Sequence) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f"S2: {name} is {value!r}; give pixels, one positive whole number or (height, width).")
    return sides


def _checked_scales(scales: Sequence[float]) -> list[float]:
    numbers = list(scales) if isinstance(scales, Sequence) and not isinstance(scales, str) else []
    real = all(isinstance(scale, Real) and not isinstance(scale, bool) for scale in numbers)
    if not numbers or not real or not all(0 < scale < math.inf for scale in numbers) or numbers != sorted(set(numbers)):
        raise UserError(f"S2: scales {scales} must be a list of increasing positive numbers, as [1, 2].")
    return numbers

"""Features of frozen teachers on disk: what a teacher makes of a view of an image is computed once.

    ROOT/TEACHER-FINGERPRINT/description.json      all that the features depend on; the fingerprint is its digest
                             view-000/states.npy   state and CRC-32 of each image's record
                             view-000/records-00000.npy, ...

A record holds a teacher's maps of one view of one image, as fields `level0`, `level1`, ...: float16, or int8 with the
scales of its channels, the fields `scale0`, .... All files are plain NumPy arrays of structured types, mapped into
memory for reading. Several processes, on one machine or on several with one file system, may write to the same file,
one at a time: each record has bytes of its own, and its state is written after them.

Legend: N images, V views, L levels, B batch, D width of a level, h, w its token grid.
"""

import functools
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sak.errors import UserError
from sak.files import write_json
from teachers import array_files

FORMAT = 1  # of the files; part of every fingerprint
DTYPES = ("float16", "int8")
SHARD_BYTES = 1 << 30

# What `read` says of a record. On disk are the first three.
EMPTY, WRITTEN, FILLED, CORRUPT = "empty", "written", "filled", "corrupt"
_CODES = {EMPTY: 0, WRITTEN: 1, FILLED: 2}
_STATES = {code: state for state, code in _CODES.items()}
_size = functools.partial(tqdm.format_sizeof, suffix="B")
_STATE = np.dtype([("crc32", "<u4"), ("code", "u1")])  # the code last: it says that what is before it is complete


class TeacherCache:
    """The features of one teacher for V views of N images, as float16 or int8.

    int8 has a scale for each channel of each map, the largest magnitude / 127.

    Args:
        root: the directory of all caches.
        teacher: its name.
        shapes: (D, h, w) of each level.
        images: N.
        views: V; a cache of more views holds those of one of fewer.
        dtype: of `DTYPES`.
        depends: all else that the features depend on, as JSON: the weights' hash, the preprocessing, the images.
        shard_bytes: about how large a file gets.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        teacher: str,
        shapes: Sequence[tuple[int, int, int]],
        images: int,
        views: int,
        dtype: str,
        depends: Mapping[str, Any],
        shard_bytes: int = SHARD_BYTES,
    ):
        self.teacher, self.images, self.views, self.dtype = teacher, images, views, dtype
        scales = [(f"scale{level}", "<f4", shape[:1]) for level, shape in enumerate(shapes)] if dtype == "int8" else []
        maps = [(f"level{level}", {"float16": "<f2", "int8": "i1"}[dtype], shape) for level, shape in enumerate(shapes)]
        self.levels = len(maps)
        self.record = np.dtype(scales + maps)
        self.per_shard = max(1, shard_bytes // self.record.itemsize)
        self.description = {
            "format": FORMAT,
            "teacher": teacher,
            "record": [list(field) for field in scales + maps],
            "images": images,
            "records_per_file": self.per_shard,
            **depends,
        }
        fingerprint = hashlib.sha256(json.dumps(self.description, sort_keys=True).encode()).hexdigest()[:16]
        self.directory = Path(root) / f"{teacher}-{fingerprint}"

    # --- space ------------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes of all records of all views."""
        return self.views * self.images * (self.record.itemsize + _STATE.itemsize)

    @property
    def occupied(self) -> int:
        """Bytes that the file system has given to these views so far; what was never written takes none."""
        there = (int(path.name.removeprefix("view-")) for path in self.directory.glob("view-*"))
        files = (path for view in there if view < self.views for path, _, _ in self._files(view))
        return sum(path.stat().st_blocks * 512 for path in files if path.exists())

    def allocate(self) -> None:
        """Make the files where they are missing or cut short; any number of processes may do so at once.

        What is missing of a file comes back as zeros, which the checksums of its records tell from features.
        """
        if not (self.directory / "description.json").exists():
            write_json(self.directory / "description.json", self.description)
        for view in range(self.views):
            self._view(view).mkdir(exist_ok=True)
            for path, dtype, count in self._files(view):
                array_files.make_array(path, dtype, count)
        array_files.mapped.cache_clear()

    # --- records ----------------------------------------------------------------------------------------------------

    def filled(self, view: int, indices: Sequence[int]) -> np.ndarray:
        """Which of the images' records are FILLED right now, as booleans; checksums are not looked at."""
        return array_files.fresh(self._states_file(view))["code"][np.asarray(indices, np.int64)] == _CODES[FILLED]

    def read(self, view: int, index: int) -> tuple[str, np.ndarray]:
        """The state of an image's record, and its bytes (uint8), which mean something if it is WRITTEN or FILLED.

        A record with another checksum than it was written with is CORRUPT.
        """
        entry = self._states(view)[index]
        state = _STATES.get(int(entry["code"]), EMPTY)
        if state == EMPTY:
            return EMPTY, np.empty(self.record.itemsize, np.uint8)
        shard, place = divmod(index, self.per_shard)
        stored = array_files.mapped(self._shard(view, shard))[place : place + 1].view(np.uint8)
        content = np.array(stored)  # the copy is checked: it is what will be used
        return (state if zlib.crc32(content.data) == entry["crc32"] else CORRUPT), content

    def write(self, view: int, indices: Sequence[int], content: np.ndarray) -> np.ndarray:
        """Store records (B, bytes) of the images at the indices, but those that another process has stored meanwhile.

        First all of them become WRITTEN, then all of them FILLED: where a kill came between, `read` tells a batch that
        was stored as a whole, none of which is EMPTY, from one that was not.

        Returns:
            the records as they are stored now, by whomever (B, bytes).

        Raises:
            UserError: the file system takes no more.
        """
        stored = content.copy()
        try:
            with array_files.alone(self._states_file(view)) as states:
                for place, index in enumerate(indices):
                    entry = np.frombuffer(
                        array_files.read_at(states, self._state_offset(index), _STATE.itemsize), _STATE
                    )
                    with array_files.alone(self._shard(view, index // self.per_shard)) as records:
                        if (others := self._intact(records, index, entry[0])) is not None:
                            stored[place] = others
                            continue
                        array_files.write_at(records, self._record_offset(index), content[place].tobytes())
                    entry = np.array((zlib.crc32(content[place].data), _CODES[WRITTEN]), _STATE)
                    array_files.write_at(states, self._state_offset(index), entry.tobytes())
                self._commit(states, indices)
        except OSError as error:
            raise UserError(
                f"features of {self.teacher} cannot be stored in {self.directory} ({error.strerror}): make room or "
                "choose another cache.path; what was stored is kept."
            ) from error
        return stored

    def commit(self, view: int, indices: Sequence[int]) -> None:
        """Make records that are WRITTEN FILLED."""
        with array_files.alone(self._states_file(view)) as states:
            self._commit(states, indices)

    def _commit(self, states: BinaryIO, indices: Sequence[int]) -> None:
        for index in indices:
            position = self._state_offset(index) + array_files.field_place(_STATE, "code")[1]
            array_files.write_at(states, position, bytes([_CODES[FILLED]]))

    def _intact(self, records: BinaryIO, index: int, entry: np.void) -> np.ndarray | None:
        """An image's record if it is FILLED with what its checksum was made of."""
        if int(entry["code"]) != _CODES[FILLED]:
            return None
        found = np.frombuffer(array_files.read_at(records, self._record_offset(index), self.record.itemsize), np.uint8)
        return found if zlib.crc32(found.data) == entry["crc32"] else None

    # --- features ---------------------------------------------------------------------------------------------------

    def encode(self, levels: Sequence[Tensor]) -> np.ndarray:
        """L maps (B, D, h, w) -> records (B, bytes).

        Raises:
            UserError: a feature is infinite or NaN, or too large for float16.
        """
        fields = {}
        for level, features in enumerate(levels):
            if self.dtype == "int8":
                scale = features.abs().amax(dim=(2, 3)) / 127
                step = torch.where(scale > 0, scale, 1)[..., None, None]
                fields[f"scale{level}"], values = scale, (features / step).round().to(torch.int8)
                finite = scale.isfinite().all()
            else:
                values = features.half()
                finite = values.isfinite().all()
            if not finite:
                raise UserError(self._refusal(level, features))
            fields[f"level{level}"] = values
        records = np.empty(len(levels[0]), self.record)
        for name, values in fields.items():
            records[name] = values.cpu().numpy()
        return records.view(np.uint8).reshape(len(records), -1)

    def _refusal(self, level: int, features: Tensor) -> str:
        """Why a level's features are not stored."""
        where = f"features of {self.teacher} at level {level}"
        if not features.isfinite().all():  # which no dtype of a cache would help
            return f"{where} are infinite or NaN, no numbers: check its weights, its dtype and the config's precision."
        largest = features.abs().max().item()
        return f"{where} are too large for float16, they reach {largest:.3g}: set cache.dtype=int8 or cache.path=null."

    def decode(self, content: Tensor) -> list[Tensor]:
        """Records (B, bytes) as a uint8 tensor on any device -> L maps (B, D, h, w) in float32."""
        levels = []
        for level in range(self.levels):
            features = self._field(content, f"level{level}").float()
            if self.dtype == "int8":
                features *= self._field(content, f"scale{level}")[..., None, None]
            levels.append(features)
        return levels

    def _field(self, content: Tensor, name: str) -> Tensor:
        dtype, offset = array_files.field_place(self.record, name)
        kind = {"f2": torch.float16, "i1": torch.int8, "f4": torch.float32}[dtype.base.str[1:]]
        part = content[:, offset : offset + dtype.itemsize].contiguous()
        return part.view(kind).view(len(content), *dtype.shape)

    # --- files ------------------------------------------------------------------------------------------------------

    def _view(self, view: int) -> Path:
        return self.directory / f"view-{view:03d}"

    def _states_file(self, view: int) -> Path:
        return self._view(view) / "states.npy"

    def _shard(self, view: int, shard: int) -> Path:
        return self._view(view) / f"records-{shard:05d}.npy"

    def _count(self, shard: int) -> int:
        """Records of a shard."""
        return min(self.per_shard, self.images - shard * self.per_shard)

    def _files(self, view: int) -> Iterable[tuple[Path, np.dtype, int]]:
        yield self._states_file(view), _STATE, self.images
        for shard in range(-(-self.images // self.per_shard)):
            yield self._shard(view, shard), self.record, self._count(shard)

    def _states(self, view: int) -> np.ndarray:
        return array_files.mapped(self._states_file(view))

    def _record_offset(self, index: int) -> int:
        """In its shard."""
        shard, place = divmod(index, self.per_shard)
        return array_files.data_offset(self.record, self._count(shard)) + place * self.record.itemsize

    def _state_offset(self, index: int) -> int:
        return array_files.data_offset(_STATE, self.images) + index * _STATE.itemsize


def allocate(caches: Sequence[TeacherCache], say: Callable[[str], None] = print) -> None:
    """Say what the caches will take, refuse what the disk cannot hold, and make their files.

    Raises:
        UserError: they do not fit, or their directory cannot be written.
    """
    for cache in caches:
        there = f", {_size(cache.occupied)} of it there" if cache.occupied else ""
        say(
            f"features of {cache.teacher}: {cache.images} images x {cache.views} views x "
            f"{_size(cache.record.itemsize)} = {_size(cache.size)}{there}, in {cache.directory}"
        )
    total = sum(cache.size for cache in caches)
    needed = sum(max(0, cache.size - cache.occupied) for cache in caches)
    root = caches[0].directory.parent
    try:
        free = shutil.disk_usage(next(place for place in (root, *root.parents) if place.exists())).free
        say(
            f"all features: {_size(total)}, {_size(needed)} still to come, {_size(free)} free; "
            "the files are sparse: they take room as they are filled"
        )
        if needed > free:
            raise UserError(
                f"the features need {_size(needed)} more, but {root} has {_size(free)} free: "
                "choose another cache.path, fewer cache.views, or cache.dtype=int8."
            )
        root.mkdir(parents=True, exist_ok=True)
        for cache in caches:
            cache.allocate()
    except OSError as error:
        raise UserError(f"cache.path {root} cannot be written ({error.strerror}): choose another.") from error

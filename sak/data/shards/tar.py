"""Images in tar archives, read where they lie: nothing is unpacked.

An archive is a tar of images in folders, a tar of such tars (as ILSVRC2012_img_train.tar, one per class), or a shard
of WebDataset. Its members are listed once, with a progress bar, and the list is kept in the user's cache directory;
from then on any image is one read at a known place, on a disk or behind an address (`sak.data.shards.remote`). So the
order of training, its division among processes and its resuming are those of a folder of images.
"""

import functools
import hashlib
import json
import os
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from sak.data.discovery import is_hidden, suffix_of, told
from sak.data.shards import remote
from sak.data.shards.names import Names
from sak.errors import UserError
from sak.files import replacing

FORMAT = 2  # of the lists in the cache
OPEN_ARCHIVES = 64  # at most, in each process
BLOCK = 512  # a tar is a sequence of such, and ends with some that are zero
HIDDEN, LINK, EMPTY = "hidden", "links", "archives without an image"  # what is left out beside other suffixes


@dataclass(frozen=True)
class Member:
    """One file in an archive; with `stem` and `read_bytes` it can stand where a `Path` does.

    `size` bytes from `offset` on in `archive`; `name` is its path there, through the inner tar if there is one.
    """

    archive: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.archive}, member {self.name},"

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    def read_bytes(self) -> bytes:
        """
        Raises:
            OSError: the archive cannot be read, or ends before the member does.
        """
        if remote.is_remote(self.archive):
            return remote.read(self.archive, self.offset, self.size)
        file = _opened(self.archive, os.getpid())
        parts, missing = [], self.size
        while missing:
            part = os.pread(file.descriptor, missing, self.offset + self.size - missing)
            if not part:
                raise OSError("the archive ends within it: it is shorter than when it was listed")
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)


class _File:
    """Closed when the last one forgets it."""

    def __init__(self, path: str):
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self):
        os.close(self.descriptor)


@functools.lru_cache(maxsize=OPEN_ARCHIVES)
def _opened(path: str, process: int) -> _File:
    """`process` is its id: what a worker process inherits stays its parent's."""
    return _File(path)


class Members(Sequence[Member]):
    """All images of one or several archives, in their order.

    Args:
        archives: their paths, and for each what `_index` lists.

    Attributes:
        left_out: a count of all else that the archives hold.
    """

    def __init__(self, archives: Sequence[tuple[str, dict[str, np.ndarray]]]):
        self._paths = [path for path, _ in archives]
        lists = [members for _, members in archives]
        self._ends = np.cumsum([len(members["offsets"]) for members in lists])  # of each archive's part of the whole
        self._offsets = np.concatenate([members["offsets"] for members in lists])
        self._sizes = np.concatenate([members["sizes"] for members in lists])
        self._names = [Names(members["name_ends"], members["name_text"]) for members in lists]
        self.left_out = sum((Counter(json.loads(str(members["left_out"]))) for members in lists), Counter[str]())
        self.left_out[EMPTY] = sum(not len(members["offsets"]) for members in lists)
        self.left_out = +self.left_out  # without zeros

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Member:  # type: ignore[override]  # no slices
        index = range(len(self))[index]
        archive = int(np.searchsorted(self._ends, index, side="right"))
        name = self._names[archive][index - int(self._ends[archive])]  # negative: counted from its end
        return Member(self._paths[archive], name, int(self._offsets[index]), int(self._sizes[index]))


def open_archives(paths: Sequence[Path | str], suffixes: set[str], keep: bool = True) -> Members:
    """The images, by their suffixes, of tar archives; `keep` their lists in the cache.

    Raises:
        UserError: archives are missing (all are counted), one is no tar, is truncated or corrupt, or none holds an
            image.
    """
    states = {path: _state(path) for path in paths}
    if missing := [path for path in paths if states[path] is None]:
        what = f"{len(missing)} of {len(paths)} archives are missing, the first is {missing[0]}"
        raise UserError(f"{what}: correct the pattern, or fetch what is missing.")
    keys = {path: _cache_file(path, state, suffixes) for path, state in states.items() if state is not None}
    lists = {path: members for path, key in keys.items() if (members := _cached(key)) is not None}
    unknown = [path for path in paths if path not in lists]
    size = sum(_size(states[path]) for path in unknown)
    with tqdm(total=size, desc="list archives", unit="B", unit_scale=True, disable=not unknown, mininterval=1) as bar:
        for path in unknown:
            lists[path] = _index(path, _size(states[path]), suffixes, bar)
            if keep and len(lists[path]["offsets"]):
                _keep(keys[path], lists[path])
    members = Members([(str(path) if remote.is_remote(path) else os.path.abspath(path), lists[path]) for path in paths])
    if not len(members):
        others = told(members.left_out, before="; ")
        raise UserError(
            f"{paths[0]} holds no image ({', '.join(sorted(suffixes))}){others}: name the archive that does."
        )
    return members


def _index(path: Path | str, size: int, suffixes: set[str], progress: tqdm) -> dict[str, np.ndarray]:
    """{"offsets", "sizes", "name_ends", "name_text"} of the images in an archive; "left_out": a count as JSON."""
    names, offsets, sizes, left_out = [], [], [], Counter[str]()
    start = progress.n
    with remote.Sequential(str(path), size) if remote.is_remote(path) else open(path, "rb") as file:
        for name, offset, length in _walk(file, str(path), 0, size):
            progress.update(start + offset - progress.n)
            if length is None or is_hidden(name):
                left_out[LINK if length is None else HIDDEN] += 1
            elif suffix_of(name) in suffixes:
                names.append(name)
                offsets.append(offset)
                sizes.append(length)
            else:
                left_out[suffix_of(name) or "without suffix"] += 1
    progress.update(start + size - progress.n)
    packed = Names.of(names)
    return {
        "offsets": np.array(offsets, np.int64),
        "sizes": np.array(sizes, np.int64),
        "name_ends": packed.ends,
        "name_text": packed.text,
        "left_out": np.array(json.dumps(left_out)),
    }


def _walk(file, place: str, start: int, size: int) -> Iterator[tuple[str, int, int | None]]:
    """(name, offset, size) of each file in the tar that fills `size` bytes of `file` from `start` on, inner tars too.

    A link has no size. `place` says in messages where the tar is.
    """
    window = _Window(file, start, size)
    try:
        with tarfile.open(fileobj=window, mode="r:", errorlevel=1) as tar:  # type: ignore[call-overload]  # see _Window
            while (member := tar.next()) is not None:
                tar.members.clear()  # or tarfile would keep a kilobyte of each
                offset = start + member.offset_data
                if member.offset_data + member.size > size:
                    raise UserError(f"{place} ends within its member {member.name}: it is truncated; fetch it again.")
                if member.issym() or member.islnk():
                    yield member.name, offset, None
                if not member.isreg() or member.issparse():
                    continue
                if member.name.lower().endswith(".tar"):
                    inner = _walk(file, f"{place}, member {member.name},", offset, member.size)
                    yield from ((f"{member.name}/{name}", at, length) for name, at, length in inner)
                else:
                    yield member.name, offset, member.size
            end = tar.offset
    except (tarfile.TarError, EOFError) as error:
        if size == 0:
            raise UserError(f"{place} is empty: fetch it again.") from None
        raise UserError(f"{place} is no uncompressed tar archive, or is corrupt ({error}): fetch it again.") from error
    # tarfile takes a corrupt header for the end; only blocks of zeros are.
    window.seek(end)
    if window.read(BLOCK) != bytes(BLOCK):
        raise UserError(f"{place} is truncated or corrupt at byte {end}, where its end is not marked: fetch it again.")


class _Window:
    """A part of a file as a file of its own, as far as tarfile needs one."""

    def __init__(self, file, start: int, size: int):
        self._file, self._start, self._size, self._position = file, start, size, 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        self._position = position
        return position

    def read(self, count: int) -> bytes:
        self._file.seek(self._start + self._position)
        data = self._file.read(max(0, min(count, self._size - self._position)))
        self._position += len(data)
        return data


def _state(path: Path | str) -> tuple[int, int | str] | None:
    """The size of an archive, and what changes with its content; None if it is not there."""
    if remote.is_remote(path):
        return remote.state(str(path))
    if not os.path.isfile(path):
        return None
    state = os.stat(path)
    return state.st_size, state.st_mtime_ns


def _size(state: tuple[int, int | str] | None) -> int:
    return state[0] if state else 0


def _cache_file(path: Path | str, state: tuple[int, int | str], suffixes: set[str]) -> Path:
    """Where the list of this very state of an archive is kept."""
    place = str(path) if remote.is_remote(path) else os.path.realpath(path)
    key = repr((FORMAT, place, *state, sorted(suffixes)))
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    stem = PurePosixPath(path).stem
    return base / "sak" / "tar" / f"{stem}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"


def _cached(path: Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(path) as content:
            return {key: content[key] for key in ("offsets", "sizes", "name_ends", "name_text", "left_out")}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
        return None  # not there, or corrupt: listed anew


def _keep(path: Path, members: dict[str, np.ndarray]) -> None:
    try:
        with replacing(path) as partial, open(partial, "wb") as file:
            np.savez(file, **members)  # type: ignore[arg-type]  # none is named as an option of savez
    except OSError as error:
        tqdm.write(f"the list of an archive's members cannot be kept in {path.parent} ({error.strerror})")

"""Which files a place on disk stands for: a folder, however deep, or a pattern. Nothing is opened.

What is left out is counted, so that it can be told.
"""

import glob
import itertools
import os
import re
import stat
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from sak.errors import UserError, printable

# What systems put beside pictures: previews of Synology and macOS, bins, and what a disk check found.
BESIDE = {"@eaDir", "__MACOSX", "$RECYCLE.BIN", "lost+found"}
MOST = 100_000  # files that a pattern may stand for: a slip of the finger must not fill the memory
HIDDEN, TWICE, BROKEN, NO_FILE = "hidden", "links to what is there already", "broken links", "pipes or devices"
RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")


def is_hidden(path: str) -> bool:
    """Whether a part of the path is hidden (`._a.jpg` of macOS too), or of a system's own."""
    return any((part.startswith(".") and part not in (".", "..")) or part in BESIDE for part in path.split("/"))


def suffix_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def find_files(folder: str | os.PathLike[str], suffixes: Collection[str]) -> tuple[list[str], Counter[str]]:
    """The files with these suffixes, in any case, below a folder: paths relative to it, sorted part by part.

    Links are followed, as data sets are often folders of links; but what they lead to is listed once, however many
    ways lead there. Folders and files that are no links come first.

    Returns:
        the files, and a count of all else that was met.

    Raises:
        UserError: a folder cannot be read.
    """
    top = os.path.realpath(folder)
    names: list[str] = []
    links: list[str] = []  # to files
    left_out: Counter[str] = Counter()
    seen = {top}  # folders, by their real paths
    folders, linked = [("", top)], deque[tuple[str, str]]()  # (path below `folder`, real path) of what is to be read
    while folders or linked:
        if not folders:
            place, real = linked.popleft()
            if real in seen:
                left_out[TWICE] += 1
                continue
            seen.add(real)
        else:
            place, real = folders.pop()
        for entry in _entries(os.path.join(folder, place)):
            path, kind = os.path.join(place, entry.name), _kind(entry)
            if is_hidden(entry.name):
                left_out[HIDDEN] += 1
            elif kind is None:
                left_out[BROKEN] += 1
            elif stat.S_ISDIR(kind):
                if entry.is_symlink():
                    target = os.path.realpath(entry.path)
                    if os.path.commonpath([real, target]) == target:  # a loop: it leads up
                        left_out[TWICE] += 1
                    else:
                        linked.append((path, target))
                elif (below := os.path.join(real, entry.name)) in seen:
                    left_out[TWICE] += 1
                else:
                    seen.add(below)
                    folders.append((path, below))
            elif suffix_of(entry.name) not in suffixes:
                left_out[suffix_of(entry.name) or "without suffix"] += 1
            elif not stat.S_ISREG(kind):
                left_out[NO_FILE] += 1
            else:
                (links if entry.is_symlink() else names).append(path)
    if links:
        found = {_identity(os.path.join(folder, name)) for name in names}
        for path in sorted(links, key=_parts):
            if (identity := _identity(os.path.join(folder, path))) in found:
                left_out[TWICE] += 1
            else:
                found.add(identity)
                names.append(path)
    return sorted(names, key=_parts), left_out


def files_in(folder: str | os.PathLike[str]) -> set[str]:
    """The names of the files in a folder, and of links to such; none where there is no such folder."""
    if not os.path.isdir(folder):
        return set()
    return {entry.name for entry in _entries(folder) if (kind := _kind(entry)) is not None and stat.S_ISREG(kind)}


class Listings:
    """Finds files below a root; their suffixes may be in any case.

    Each folder is listed once, instead of one query per file: archives often lie on a network.
    """

    def __init__(self, root: Path):
        self.root = root
        self._known: dict[str, dict[str, str]] = {}

    def find(self, place: str) -> Path | None:
        """The file at a path below the root; of ID.JPG and ID.jpg the latter."""
        folder, name = os.path.split(place)
        if folder not in self._known:
            self._known[folder] = {_in_any_case(file): file for file in sorted(files_in(self.root / folder))}
        found = self._known[folder].get(_in_any_case(name))
        return None if found is None else self.root / folder / found

    def find_all(
        self, needed: Mapping[str, Sequence[Sequence[str]]], names: Sequence[str], folder: str
    ) -> tuple[dict[str, list[list[Path | None]]], list[tuple[str, str]]]:
        """The files of each name, and which do not exist.

        Args:
            needed: {what: for each file that it needs the places where it may lie, the first that exists is meant},
                with "{}" or "{name}" for the name and "{split}" for `folder`.

        Returns:
            {what: for each name its files}, None in the place of a missing one; and (what, file) of those, in the
            names' order, each once.
        """
        found: dict[str, list[list[Path | None]]] = {what: [] for what in needed}
        missing: dict[tuple[str, str], None] = {}  # in the order in which they are met
        for name in names:
            for what, files in needed.items():
                paths = []
                for places in files:
                    candidates = [place.format(name, name=name, split=folder) for place in places]
                    path = next(filter(None, map(self.find, candidates)), None)
                    if path is None:
                        missing[what, ", or ".join(str(self.root / candidate) for candidate in candidates)] = None
                    paths.append(path)
                found[what].append(paths)
        return found, list(missing)


def _in_any_case(name: str) -> str:
    """One name for all ways to write the suffix."""
    stem, suffix = os.path.splitext(name)
    return stem + suffix.lower()


def told(left_out: Counter[str], before: str = "", shown: int = 6) -> str:
    """ "left out: 12 .txt, 3 hidden" behind `before`; "" where nothing was."""
    most = [f"{count:,} {printable(what)}" for what, count in left_out.most_common(shown)]
    others = sum(left_out.values()) - sum(count for _, count in left_out.most_common(shown))
    return f"{before}left out: {', '.join(most)}{f', {others:,} others' if others else ''}" if most else ""


def expand(pattern: str) -> list[Path]:
    """The files that a pattern stands for, as WebDataset has them: `a::b`, `{a,b}`, `{000..146}`, `*`, `?`, `[ab]`.

    In the pattern's order, what `*` stands for sorted. What exists under the very name is meant by it, whatever
    characters it has. Files that are spelt out need not exist.

    Raises:
        UserError: the pattern stands for no file, or for more than `MOST`.
    """
    if os.path.exists(pattern):
        return [Path(pattern)]
    spelt = _few((name for part in pattern.split("::") for name in _alternatives(os.path.expanduser(part))), pattern)
    paths = _few((path for name in spelt for path in _matches(name)), pattern)
    if not paths:
        raise UserError(f"{pattern} stands for no file: correct the pattern.")
    return [Path(path) for path in paths]


def spelt_out(pattern: str) -> list[str]:
    """The same of addresses, of which only `a::b`, `{a,b}` and `{000..146}` are known without asking.

    Raises:
        UserError: they are more than `MOST`.
    """
    return _few((name for part in pattern.split("::") for name in _alternatives(part)), pattern)


def _few(paths: Iterator[str], pattern: str) -> list[str]:
    try:
        found = list(itertools.islice(paths, MOST + 1))
    except RecursionError:  # of a thousand braces
        found = [pattern] * (MOST + 1)
    if len(found) > MOST:
        raise UserError(f"{pattern} stands for more than {MOST:,} files: correct the range of its numbers.")
    return found


def _matches(name: str) -> list[str]:
    if glob.has_magic(name) and not os.path.exists(name):
        return sorted(glob.iglob(name))
    return [name] if name else []


def _alternatives(text: str) -> Iterator[str]:
    """All that `{a,b}` and `{08..11}` stand for in a text, one after the other; other braces stand for themselves."""
    if not os.path.exists(text):
        for start, _ in filter(lambda place: place[1] == "{", enumerate(text)):
            end, choices = _choices(text, start)
            if choices is not None:
                for choice in choices:
                    yield from _alternatives(text[:start] + choice + text[end:])
                return
    yield text


def _choices(text: str, start: int) -> tuple[int, Iterator[str] | None]:
    """Where the braces that open at `start` end, and what they let one choose from; None: nothing."""
    depth, cuts = 0, [start]
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if (depth == 1 and text[place] == ",") or depth == 0:
            cuts.append(place)
        if depth == 0:
            break
    end = cuts[-1]
    if depth == 0 and (limits := RANGE.fullmatch(text, start + 1, end)):
        first, last = limits.groups()
        return end + 1, (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
    if depth == 0 and len(cuts) > 2:
        return end + 1, (text[one + 1 : other] for one, other in itertools.pairwise(cuts))
    return end, None


def _entries(folder: str | os.PathLike[str]) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{os.fspath(folder)} cannot be read ({error.strerror}): see to the folder.") from error


def _kind(entry: os.DirEntry) -> int | None:
    """The type bits of what an entry is or leads to; None of a broken link. Only links are asked for on the disk."""
    if entry.is_symlink():
        try:
            return stat.S_IFMT(os.stat(entry.path).st_mode)
        except OSError:
            return None
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    return stat.S_IFDIR if entry.is_dir(follow_symlinks=False) else stat.S_IFIFO


def _identity(path: str) -> tuple[int, int]:
    state = os.stat(path)
    return state.st_dev, state.st_ino


def _parts(path: str) -> list[str]:
    return path.split(os.sep)

"""Millions of names in little memory."""

from collections.abc import Iterable, Sequence

import numpy as np


class Names(Sequence[str]):
    """Strings in two arrays.

    Worker processes share arrays with the process that they are forked from; the strings of a list they would copy one
    by one, as reading a string changes its reference count.

    Args:
        ends: int64 (n,), where each string ends in `text`.
        text: uint8, all of them in UTF-8, one after the other.
    """

    def __init__(self, ends: np.ndarray, text: np.ndarray):
        self.ends, self.text = ends, text

    @classmethod
    def of(cls, strings: Iterable[str]) -> "Names":
        # surrogateescape, here and below: names of files are bytes, and some are no UTF-8
        encoded = [string.encode("utf-8", "surrogateescape") for string in strings]
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        return cls(ends, np.frombuffer(b"".join(encoded), np.uint8))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # no slices
        index = range(len(self))[index]
        start = self.ends[index - 1] if index else 0
        return self.text[start : self.ends[index]].tobytes().decode("utf-8", "surrogateescape")

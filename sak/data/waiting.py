"""How much of the training's time goes by waiting for data."""

import time
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Waiting(Generic[Item]):
    """Hands on what ``source`` yields, and measures how long that takes to come."""

    def __init__(self, source: Iterable[Item]):
        self.source = source
        self._seconds = 0.0
        self._since = time.perf_counter()

    def __iter__(self) -> Iterator[Item]:
        items = iter(self.source)
        while True:
            asked = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self._seconds += time.perf_counter() - asked
            yield item

    def share(self) -> float:
        """Of the time since the last call (or since the start), that which was spent waiting: 0 to 1."""
        now = time.perf_counter()
        share = self._seconds / max(now - self._since, 1e-9)
        self._seconds, self._since = 0.0, now
        return share

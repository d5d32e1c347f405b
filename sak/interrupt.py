"""Ctrl-C as a request that is heard between two steps."""

import os
import signal
import sys
from types import FrameType


class StopRequest:
    """While active, the first SIGINT or SIGTERM sets ``made``; a second one stops at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __enter__(self) -> "StopRequest":
        self.made = False
        self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.made:
            raise KeyboardInterrupt("stopped at once, without a checkpoint of the last steps")
        self.made = True
        if os.environ.get("RANK", "0") == "0":  # set by torchrun
            print("\nstopping after this step, with a checkpoint; once more to stop at once", file=sys.stderr)

"""The losses of the steps, left on the device until somebody looks.

Reading a number makes the host wait for the device; a step that reads none is queued while the one before still runs.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

GRADIENT = "gradient_norm"  # what is noted of a step beside the terms of its loss

DIVERGED = (
    "no checkpoint was written since, and the same command goes on from the last one; if it comes again, try a lower "
    "learning rate, clipping or precision=fp32, under another name"
)


class LossRecord:
    """The loss terms of a stage's steps, and their gradients' norms, since they were last checked.

    Args:
        stage: whose they are, for the message.
        mean: averages a tensor over the processes that train together: all of them look at the same steps.
        advice: the rest of the message.
    """

    def __init__(self, stage: str, mean: Callable[[Tensor], Tensor] = lambda values: values, advice: str = DIVERGED):
        self.stage, self.mean, self.advice = stage, mean, advice
        self._unread: list[tuple[int, list[str], Tensor]] = []

    def add(self, step: int, terms: Mapping[str, Tensor]) -> None:
        """Note the terms of a step (counted from 1) and, after them, its ``GRADIENT``, without a look at them."""
        self._unread.append((step, list(terms), torch.stack([term.float() for term in terms.values()])))

    def read(self) -> dict[str, float]:
        """The newest step's terms, which was not checked before.

        Raises:
            FloatingPointError: as ``check``.
        """
        _, names, _ = self._unread[-1]
        return dict(zip(names, self.check()[-1], strict=True))

    def check(self) -> list[list[float]]:
        """The terms of all steps since the last check.

        Raises:
            FloatingPointError: a term of a step since the last check is not finite, or its gradient is not; the first
                one is named.
        """
        if not self._unread:
            return []
        rows = self.mean(torch.stack([values for _, _, values in self._unread])).tolist()
        for (step, names, _), row in zip(self._unread, rows, strict=True):
            for name, value in zip(names, row, strict=True):
                if name != "total" and not math.isfinite(value):
                    what = "the gradient's norm" if name == GRADIENT else f"the loss term {name}"
                    where = f"at step {step} of the stage {self.stage}"
                    raise FloatingPointError(f"{what} is {value} {where}; {self.advice}")
        self._unread.clear()
        return rows

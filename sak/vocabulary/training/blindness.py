"""Does a model look at its images? The loss on its own images beside that on others of the same kind.

A language model can learn the answers' style without its eyes: it then has one answer for all images, and a loss that
does not mind which image is shown. This is the most common failure of trainings from scratch, and it is seen early.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from sak.vocabulary.model import VocabularyModel

CLEARLY = 1.1  # times the loss on its own images: what the loss on others is above, if a model looks


@dataclass
class Losses:
    """Per token of the answers.

    Attributes:
        own: with each sample's own image.
        shuffled: with that of another sample of its kind.
        cut: answers that were too long for the context.
    """

    own: float
    shuffled: float
    cut: int

    @property
    def blind(self) -> bool:
        return not self.shuffled > CLEARLY * self.own


@torch.no_grad()
def losses(model: VocabularyModel, batches: Iterable[Mapping], accelerator: Accelerator) -> Losses:
    """Of samples each of which gets the image of the one before it of its kind. All processes must ask.

    The first of a kind has none before it and counts in neither.

    Args:
        batches: this process's; on its device.
    """
    before: dict[str, Tensor] = {}
    sums = torch.zeros(4, dtype=torch.float64, device=accelerator.device)  # own, shuffled, tokens, cut
    for batch in batches:
        kept, others = [], []
        for index, kind in enumerate(batch["kind"]):
            if kind in before:
                kept.append(index)
                others.append(before[kind])
            before[kind] = batch["image"][index]
        if not kept:
            continue
        texts = [[batch[key][index] for index in kept] for key in ("prompt", "answer")]
        for place, images in enumerate((batch["image"][kept], torch.stack(others))):
            with accelerator.autocast():
                output = model(images, *texts)
            sums[place] += output.loss.double() * output.tokens
        sums[2] += output.tokens
        sums[3] += output.cut
    own, shuffled, tokens, cut = accelerator.reduce(sums, "sum").tolist()
    return Losses(own / max(tokens, 1), shuffled / max(tokens, 1), int(cut))

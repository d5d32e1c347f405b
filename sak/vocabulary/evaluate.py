"""How well a model reads and points, and whether it looks: every evaluation asks again with the wrong images.

**The blindness test.** Within a kind of samples each prompt gets another sample's image, and the answers are held
against the prompts' own truths. A model sees if its answers are worth more with the right images: the mean difference
of the scores (`sak.vocabulary.scores`) is above `SEES` and above `ERRORS` times its standard error. Otherwise it is
blind, and told to be: such a model may have learnt fluent answers, and one for all images. Beside both stands the best
that can be done without eyes: the one answer to each prompt, out of those that are there, that is worth most.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sak.data.loading import Samples, evenly_spread, load, packed
from sak.evaluation.evaluate import to_device
from sak.vocabulary.data.mixture import Mixture
from sak.vocabulary.scores import KINDS

Report = dict[str, dict[str, float]]  # {kind of sample: {metric: value}}

SEES = 0.05  # a smaller gain by the right images is none ...
ERRORS = 3  # ... nor one of fewer standard errors: once in 700 times luck looks like that
CONSTANTS = 12  # answers that are tried for a prompt: the most frequent ones
MAX_NEW_TOKENS = 256


class Reader(Protocol):
    """What is evaluated: a `VocabularyModel`, or anything that answers prompts about images."""

    @property
    def device(self) -> torch.device: ...

    def generate(
        self, images: Tensor, prompts: Sequence[str], beams: int = 1, max_new_tokens: int = MAX_NEW_TOKENS
    ) -> list[str]:
        """
        Args:
            images: float32 (B, 3, H, W) in [0, 1], on `device`.
        """


class Answer(NamedTuple):
    name: str
    kind: str
    prompt: str
    truth: str
    answer: str


@torch.no_grad()
def evaluate(
    model: Reader,
    dataset: Samples,
    shuffled: bool = False,
    batch_size: int = 16,
    samples: int | None = None,
    beams: int = 1,
    max_new_tokens: int = MAX_NEW_TOKENS,
    workers: int = 0,
    progress: bool = False,
) -> Report:
    """Metrics of each kind of samples, and the blindness test.

    Returns:
        {kind: its metrics; "KIND_shuffled": those of shuffled images; "KIND_unseen": of the best that can be said
        blind}. Beside the metrics of its kind each has "score", which true and shuffled images are compared by,
        "distinct", how many different answers there are for each different truth, up to 1, and "samples". KIND itself
        has "gain", the score with the right images less that with shuffled ones, "error", its standard error, and
        "blind", 1 where the model does not look.

    Args:
        shuffled: only what the shuffled images give, under the names of the kinds themselves.
        samples: so many of the data set's, evenly spread; None: all.
        beams: 1: the likeliest token at each step.
    """
    indices = evenly_spread(len(dataset), samples)
    wrong = shuffle(dataset, indices)

    def asked(images: Sequence[int]) -> dict[str, list[Answer]]:
        batches = load(Shown(dataset, indices, images), _in_batches(len(indices), batch_size), workers)
        found: dict[str, list[Answer]] = defaultdict(list)
        with tqdm(total=len(indices), desc="ask", unit="img", disable=not progress, dynamic_ncols=True) as bar:
            for answer in answers(model, batches, beams, max_new_tokens):
                found[answer.kind].append(answer)
                bar.update()
        return found

    if shuffled:
        return {kind: measured(given) for kind, given in asked(wrong).items()}
    right, others = asked(indices), asked(wrong)
    report: Report = {}
    for kind, given in right.items():
        report |= compared(given, others[kind])
    return report


def answers(model: Reader, batches: Iterable[dict], beams: int, max_new_tokens: int) -> Iterator[Answer]:
    """What the model says to each prompt of batches of samples."""
    for batch in batches:
        images = to_device(batch, model.device)["image"]
        said = model.generate(images, batch["prompt"], beams=beams, max_new_tokens=max_new_tokens)
        for fields in zip(batch["name"], batch["kind"], batch["prompt"], batch["answer"], said, strict=True):
            yield Answer(*fields)


def measured(given: Sequence[Answer]) -> dict[str, float]:
    """The metrics of answers of one kind."""
    kind = KINDS[given[0].kind]
    different = {answer.answer for answer in given}
    return {
        **kind.metrics([answer.answer for answer in given], [answer.truth for answer in given]),
        "score": float(np.mean(scores(given))),
        "distinct": min(1.0, len(different) / len({answer.truth for answer in given})),
        "samples": float(len(given)),
    }


def scores(given: Sequence[Answer]) -> np.ndarray:
    """float64 (N,): what each answer is worth."""
    return np.array([KINDS[answer.kind].score(answer.answer, answer.truth) for answer in given], np.float64)


def compared(right: Sequence[Answer], wrong: Sequence[Answer]) -> Report:
    """The metrics of answers of one kind, with those about the wrong images and without any, and the verdict."""
    kind = right[0].kind
    gains = scores(right) - scores(wrong)
    gain = float(gains.mean())
    error = float(gains.std(ddof=1) / len(gains) ** 0.5) if len(gains) > 1 else 1.0
    verdict = {"gain": gain, "error": error, "blind": float(not gain > max(SEES, ERRORS * error))}
    return {
        kind: {**measured(right), **verdict},
        f"{kind}_shuffled": measured(wrong),
        f"{kind}_unseen": measured(unseen(right)),
    }


def unseen(given: Sequence[Answer]) -> list[Answer]:
    """The best constant answer to each prompt; prompts that are asked once share one.

    It is chosen in hindsight, on the very samples that it is measured on: nobody who does not look does better with
    one of these answers.
    """
    often = Counter(answer.prompt for answer in given)
    groups: dict[str, list[Answer]] = defaultdict(list)
    for answer in given:
        groups[answer.prompt if often[answer.prompt] > 1 else ""].append(answer)
    best = {
        prompt: max(
            (truth for truth, _ in Counter(answer.truth for answer in group).most_common(CONSTANTS)),
            key=lambda truth: scores([answer._replace(answer=truth) for answer in group]).mean(),
        )
        for prompt, group in groups.items()
    }
    return [answer._replace(answer=best[answer.prompt if often[answer.prompt] > 1 else ""]) for answer in given]


def blind(report: Report) -> list[str]:
    """One sentence for each kind that the model answers blindly; none if it looks."""
    return [
        f"{kind}: the model does not look at the images: its answers score {found['score']:.3f}, and "
        f"{report[f'{kind}_shuffled']['score']:.3f} about other samples' images (the difference must be above {SEES} "
        f"and above {ERRORS} times its standard error, which is {found['error']:.3f})"
        for kind, found in report.items()
        if found.get("blind")
    ]


def shuffle(dataset: Samples, indices: Sequence[int]) -> list[int]:
    """For each index another one of the same kind, whose image it gets; its own, if it is the only one of its kind."""
    kinds: dict[str, list[int]] = defaultdict(list)
    for place, index in enumerate(indices):
        kinds[kind_of(dataset, index)].append(place)
    wrong = list(indices)
    for places in kinds.values():
        order = np.random.default_rng(0).permutation(places).tolist()
        for place, other in zip(order, [*order[1:], order[0]], strict=True):
            wrong[place] = indices[other]
    return wrong


def kind_of(dataset: Samples, index: int) -> str:
    """Without rendering the sample where the data set knows it so."""
    return dataset.kinds[dataset.kind_of[index]] if isinstance(dataset, Mixture) else dataset[index]["kind"]


class Shown:
    """Samples of a data set, each with the image of another or the same one."""

    def __init__(self, dataset: Samples, indices: Sequence[int], images: Sequence[int]):
        self.dataset, self.indices, self.images = dataset, indices, images

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> dict:
        sample = dict(packed(self.dataset, self.indices[place]))
        if self.images[place] != self.indices[place]:
            shown = packed(self.dataset, self.images[place])
            sample |= {key: shown[key] for key in ("pixels", "image") if key in shown}
        return sample


def _in_batches(count: int, size: int) -> list[list[int]]:
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]

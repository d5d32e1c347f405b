"""What an answer is worth, for each kind of sample: one number for each answer, and the metrics over all of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sak.metrics import text
from sak.metrics.boxes import THRESHOLD, BoxScores, iou
from sak.vocabulary.prompts import parse_boxes

Metrics = dict[str, float]


class Kind(NamedTuple):
    """
    Attributes:
        score: of (answer, truth), from 0 to 1; what true and shuffled images are compared by.
        metrics: of (answers, truths).
    """

    score: Callable[[str, str], float]
    metrics: Callable[[Sequence[str], Sequence[str]], Metrics]


def _similarity(answer: str, truth: str) -> float:
    return 1 - text.normalised_edit_distance(answer, truth)


def _text_metrics(answers: Sequence[str], truths: Sequence[str]) -> Metrics:
    functions = {
        "anls": text.anls,
        "normalised_edit_distance": text.normalised_edit_distance,
        "exact_words": text.exact_words,
    }
    return {name: _mean(function, answers, truths) for name, function in functions.items()}


def _f1(answer: str, truth: str) -> float:
    return BoxScores.of(parse_boxes(answer).objects, parse_boxes(truth).objects).f1


def _detection_metrics(answers: Sequence[str], truths: Sequence[str]) -> Metrics:
    parsed = [parse_boxes(answer) for answer in answers]
    pairs = zip(parsed, truths, strict=True)
    total = sum((BoxScores.of(one.objects, parse_boxes(truth).objects) for one, truth in pairs), BoxScores())
    return {
        "f1": total.f1,
        "precision": total.precision,
        "recall": total.recall,
        "mean_iou": total.mean_iou,
        "malformed": float(np.mean([one.malformed for one in parsed])),  # pieces in an answer
    }


def _overlap(answer: str, truth: str) -> float:
    """IoU of the one box; of several answered ones none is meant."""
    found, true = parse_boxes(answer).boxes, parse_boxes(truth).boxes
    return float(iou(found, true)[0, 0]) if len(found) == len(true) == 1 else 0.0


def _expression_metrics(answers: Sequence[str], truths: Sequence[str]) -> Metrics:
    overlaps = np.array([_overlap(*pair) for pair in zip(answers, truths, strict=True)])
    return {
        "accuracy": float((overlaps >= THRESHOLD).mean()),
        "mean_iou": float(overlaps.mean()),
        "malformed": float(np.mean([parse_boxes(answer).malformed for answer in answers])),
    }


def _chart_metrics(answers: Sequence[str], truths: Sequence[str]) -> Metrics:
    return {"relaxed_accuracy": _mean(text.relaxed_accuracy, answers, truths)}


def _mean(function: Callable[[str, str], float], answers: Sequence[str], truths: Sequence[str]) -> float:
    return float(np.mean([function(*pair) for pair in zip(answers, truths, strict=True)]))


# The first metric of each is its headline.
KINDS: Mapping[str, Kind] = {
    "text": Kind(_similarity, _text_metrics),
    "pdf": Kind(_similarity, _text_metrics),
    "detection": Kind(_f1, _detection_metrics),
    "expression": Kind(_overlap, _expression_metrics),
    "chart": Kind(text.relaxed_accuracy, _chart_metrics),
}

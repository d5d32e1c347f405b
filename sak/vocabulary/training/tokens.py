"""Accuracy against vision tokens: one training for each size of the images or each compression, and one figure.

What DeepSeek-OCR (arXiv 2510.18234) asks of its encoder: how many tokens of text a token of the image can hold.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from sak import config as configuration
from sak import plotting, tables
from sak.config.derived import left_out
from sak.data.loading import evenly_spread
from sak.errors import UserError
from sak.files import read_json, write_text
from sak.vocabulary import data
from sak.vocabulary.model import VocabularyModel
from sak.vocabulary.scores import KINDS
from sak.vocabulary.training.train import train

HEADLINES = {"text": "anls", "pdf": "anls", "detection": "f1", "expression": "accuracy", "chart": "relaxed_accuracy"}
ANSWERS = 100  # samples whose answers' mean length is told


def token_curve(place: str, overrides: Sequence[str], variants: Sequence[str], output: Path) -> Path:
    """Train what is missing, and write ``tokens.md``, ``tokens.json`` and ``tokens.png``.

    Args:
        place: of the config.
        overrides: of all runs.
        variants: each the overrides of one run, apart by spaces; runs are called NAME-tokens-NUMBER.

    Returns:
        the table's file.

    Raises:
        UserError: the config trains no vocabulary, a variant is wrong, or two runs would be one.
    """
    configs = []
    for number, variant in enumerate(variants, start=1):
        config = configuration.load(place, [*overrides, *variant.split()])
        if left_out(config.stages.vocabulary):
            raise UserError(f"{place} trains no vocabulary: stages.vocabulary.steps is 0")
        config.name = f"{config.name}-tokens-{number}"
        configs.append(config)
    rows = []
    for variant, config in zip(variants, configs, strict=True):
        run = train(config)
        model, val = VocabularyModel.from_pretrained(run.path), data.build(config.vocabulary.data, "val")
        texts = [val[index]["answer"] for index in evenly_spread(len(val), ANSWERS)]
        length = sum(len(model.tokenizer(text).input_ids) for text in texts) / len(texts)
        report = read_json(run.metrics)
        found = {f"{kind} {HEADLINES[kind]}": report[kind][HEADLINES[kind]] for kind in KINDS if kind in report}
        tokens = model.vision_tokens
        rows.append({"variant": variant, "tokens": tokens, "text tokens per token": length / tokens, **found})
    rows.sort(key=lambda row: row["tokens"])
    write_text(output / "tokens.json", json.dumps(rows, indent=2) + "\n")
    header = list(rows[0])
    cells = [[f"{row[key]:.3g}" if isinstance(row[key], float) else str(row[key]) for key in header] for row in rows]
    text = f"# Accuracy against vision tokens\n\n{tables.markdown([header, *cells])}\n"
    write_text(output / "tokens.md", text)
    plotting.save(_figure(rows, header[3:]), output / "tokens.png")
    return output / "tokens.md"


def _figure(rows: Sequence[dict], metrics: Sequence[str]) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for metric in metrics:
        axis.plot([row["tokens"] for row in rows], [row[metric] for row in rows], marker="o", label=metric)
    axis.set_xscale("log", base=2)
    axis.set(xlabel="vision tokens of an image", ylabel="score, validation samples", ylim=(0, 1))
    axis.grid(alpha=0.3)
    axis.legend()
    return figure

"""What each number of a config must be: one table, of every numeric key of the schema."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from sak.config.schema import (
    AdaptationConfig,
    CacheConfig,
    Config,
    DataConfig,
    DistillConfig,
    EvaluationConfig,
    LabelConfig,
    MultitaskConfig,
    ProbeConfig,
    RendererConfig,
    StageConfig,
    StudentConfig,
    TeacherSpec,
)
from sak.config.steps import OptimConfig, StepsConfig
from sak.config.vocabulary import (
    LanguageModelConfig,
    NetworkConfig,
    PageConfig,
    VocabularyConfig,
    VocabularyDataConfig,
    VocabularyStageConfig,
)
from sak.limits import LONGEST_NAME, MOST, MOST_PIXELS, MOST_PROCESSES, MOST_SEED


class Rule(NamedTuple):
    """
    Attributes:
        holds: of a value that is not null.
        says: what the value must be.
    """

    holds: Callable[[Any], bool]
    says: str


def whole(least: int, most: int = MOST, beside: str = "") -> Rule:
    start = "positive" if least == 1 else f"at least {least}"
    return Rule(lambda value: least <= value <= most, f"{start}{beside or f', and at most {most:,}'}")


def increasing(what: str) -> Rule:
    return Rule(
        lambda values: list(values) == sorted({value for value in values if 0 <= value <= MOST}) != [],
        f"a list of {what}, counted from 0, each larger than the one before",
    )


def _is_colour(value: Any) -> bool:
    return not isinstance(value, int | float) and len(value) == 3 and all(0 <= part <= 255 for part in value)


POSITIVE = Rule(lambda value: 0 < value < math.inf, "positive, and finite")
NOT_NEGATIVE = Rule(lambda value: 0 <= value < math.inf, "at least 0, and finite")
SHARE = Rule(lambda value: 0 <= value <= 1, "a share between 0 and 1")
PROBABILITY = Rule(SHARE.holds, "a probability, from 0 to 1")
SIZE = Rule(
    lambda sides: len(sides) == 2 and all(1 <= side <= MOST_PIXELS for side in sides),
    f"[height, width], each from 1 to {MOST_PIXELS}",
)
SCALES = Rule(
    lambda scales: 0 < len(scales) == len(set(scales)) and all(1 <= scale <= 64 for scale in scales),
    "a list of different whole numbers from 1 to 64",
)
SEED = whole(0, MOST_SEED)
FEWEST_TOKENS = 260  # of a byte-level tokenizer: the bytes, padding, the end, and the two around an image
SPAN = Rule(
    lambda ends: len(ends) == 2 and 1 <= ends[0] <= ends[1] <= MOST_PIXELS,
    f"[least, most], each from 1 to {MOST_PIXELS}",
)
STORED = Rule(
    lambda numbers: 0 < len(numbers) == len(set(numbers)) and all(0 <= number <= 65535 for number in numbers),
    "different whole numbers from 0 to 65535",
)

RANGES: dict[type, dict[str, Rule]] = {
    Config: {"seed": SEED},
    RendererConfig: {"train": whole(1), "val": whole(1), "seed": SEED, "unlabelled": whole(0)},
    DataConfig: {
        "image_size": SIZE,
        "workers": whole(0, MOST_PROCESSES),
        "timeout": whole(1),
        "max_skipped": SHARE,
        "normals_tolerance": Rule(lambda value: 0 < value < 1, "between 0 and 1, or null"),
        "scale": Rule(
            lambda scale: len(scale) == 2 and 0 < scale[0] <= scale[1] <= 16,
            "[least, largest] factor, above 0 and up to 16",
        ),
        "colours": Rule(
            lambda colours: len(colours) > 0 and all(map(_is_colour, colours)),
            "a list of [red, green, blue], each from 0 to 255",
        ),
    },
    LabelConfig: {
        "values": STORED,
        "ignore": STORED,
        "scale": POSITIVE,
        "max_dist": Rule(lambda share: 0 < share < 1, "a share of the image's diagonal, between 0 and 1"),
    },
    StudentConfig: {
        "levels": increasing("blocks of the stem"),
        "adapter_ratio": whole(1),
        "router_temperature": POSITIVE,
        "router_top_k": whole(1),
    },
    TeacherSpec: {
        "levels": increasing("the teacher's blocks"),
        "input_size": Rule(
            lambda side: isinstance(side, str) or 1 <= side <= MOST_PIXELS,  # of a word its family says more
            f"a whole number from 1 to {MOST_PIXELS}, native or null",
        ),
        "scales": SCALES,
    },
    OptimConfig: {
        "lr": POSITIVE,
        "weight_decay": NOT_NEGATIVE,
        "warmup_steps": whole(0),
        "warmup_epochs": whole(0),
        "warmup_lr": NOT_NEGATIVE,
        "min_lr": NOT_NEGATIVE,
        "power": NOT_NEGATIVE,
        "betas": Rule(
            lambda betas: len(betas) == 2 and all(0 <= beta < 1 for beta in betas), "two numbers from 0 to below 1"
        ),
        "clip": POSITIVE,
    },
    StepsConfig: {
        "steps": whole(0),
        "epochs": whole(1, beside="; steps=0 leaves the stage out"),
        "batch_size": whole(1),
        "accumulate": whole(1),
        "checkpoint_every": whole(1),
        "keep_last": whole(1),
        "log_every": whole(1),
    },
    StageConfig: {
        "standardise_images": whole(1),
        "teacher_dropping": PROBABILITY,
    },
    DistillConfig: {
        "image_size": SIZE,
        "crop_scale": Rule(
            lambda scale: len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1,
            "[least, largest] share of the image, above 0 and up to 1",
        ),
    },
    MultitaskConfig: {
        "alpha": NOT_NEGATIVE,
        "labelled": Rule(lambda share: 0 < share <= 1, "a share of the images, above 0 and up to 1"),
        "evaluate_every": whole(0),  # 0 is an older form of null
        "balance": NOT_NEGATIVE,
        "task_balance_lr": POSITIVE,
        "gradnorm_alpha": NOT_NEGATIVE,
    },
    AdaptationConfig: {"rank": whole(1), "taps": increasing("blocks of the backbone")},
    EvaluationConfig: {"batch_size": whole(1, beside=", or null for as many as the second stage trains on at once")},
    CacheConfig: {"views": whole(1, beside=", or null for new views in each epoch")},
    VocabularyDataConfig: {
        "kinds": NOT_NEGATIVE,
        "image_size": whole(1, MOST_PIXELS),
        "train": whole(1),
        "val": whole(1),
        "seed": SEED,
        "growth": Rule(
            lambda ends: len(ends) == 2 and 0 <= ends[0] <= ends[1] <= MOST,
            "[from, to], two whole numbers of samples, the second not below the first",
        ),
        "things": whole(1, 30),
        "scenes": whole(1),
        "least_object": SHARE,
    },
    PageConfig: {
        "lines": SPAN,
        "characters": SPAN,
        "columns": whole(1, 16),
        "font_size": SPAN,
        "rotation": Rule(lambda degrees: 0 <= degrees <= 45, "degrees, from 0 to 45"),
        "noise": SHARE,
        "moved": SHARE,
        "empty": SHARE,
    },
    NetworkConfig: {
        "channels": Rule(
            lambda widths: len(widths) > 0 and all(1 <= width <= MOST for width in widths),
            "the channels of at least one convolution, each positive",
        )
    },
    LanguageModelConfig: {"tokens": whole(FEWEST_TOKENS, beside=": the 256 bytes and the special tokens")},
    VocabularyConfig: {"context": whole(1)},
    VocabularyStageConfig: {"evaluate_every": whole(1), "evaluate_samples": whole(1)},
    ProbeConfig: {
        "scales": SCALES,
        "steps": whole(1),
        "batch_size": whole(1),
        "log_every": whole(1),
        "width": whole(1),
    },
}


def rule_of(schema: type, field: str) -> Rule | None:
    """That of a field of a dataclass, or of one that it inherits from."""
    return next((RANGES[kind][field] for kind in schema.__mro__ if field in RANGES.get(kind, {})), None)


def rules(config: DictConfig, schema: type = Config, prefix: str = "") -> Iterator[tuple[str, Any, Rule]]:
    """(key, value, rule) of all that a config holds and that is not null."""
    for field in dataclasses.fields(schema):
        key, value = f"{prefix}{field.name}", config[field.name]
        if isinstance(value, DictConfig) and (rule := rule_of(schema, field.name)):
            yield from ((f"{key}.{name!s}", part, rule) for name, part in value.items())
        elif isinstance(value, DictConfig):
            parts = (
                {key: value} if dataclasses.is_dataclass(field.type) else {f"{key}.{n!s}": v for n, v in value.items()}
            )
            for name, part in parts.items():
                if dataclasses.is_dataclass(kind := OmegaConf.get_type(part)):
                    yield from rules(part, kind, f"{name}.")
        elif value is not None and (rule := rule_of(schema, field.name)):
            yield key, value, rule


NAME = Rule(
    lambda name: name not in (".", "..") and "/" not in name and len(name.encode()) <= LONGEST_NAME,
    f"the name of a directory: at most {LONGEST_NAME} bytes, without /, and neither . nor ..",
)
# Of a teacher or an extra model: part of file names, of keys in weights, and of lists as in a+b,c.
MODEL_NAME = Rule(
    lambda name: re.fullmatch(r"[\w-]{1,60}", name) is not None and name != "stem",
    "at most 60 letters, digits, _ and -, and not stem, which is what the student's own features are called",
)

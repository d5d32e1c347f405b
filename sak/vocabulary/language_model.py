"""The language model that reads an image's tokens, and its tokenizer: published ones, or built on the spot."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from sak.errors import UserError
from sak.student.hub import asked_only_if_reachable
from sak.vocabulary.prompts import END, IMAGE_END, IMAGE_START, PHRASES

PAD = "<pad>"
TOKENIZER = "tokenizer.json"  # of a trained one, in a run directory


def train_tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of at most so many tokens, to which no text is unknown; every digit is a token of its own.

    The template's and the prompts' fixed phrases are tokens besides. They say the same beside every image, and a small
    language model that begins from nothing finds the image later among dozens of them.
    """
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, END, IMAGE_START, IMAGE_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(list(PHRASES))
    return _wrapped(tokenizer)


def read_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """A trained one, of the file that ``backend_tokenizer.save`` has written.

    Raises:
        UserError: it is corrupt.
    """
    try:
        return _wrapped(Tokenizer.from_file(str(file)))
    except Exception as error:  # the library has no class of its own for them
        raise UserError(f"{file} is corrupt ({str(error).splitlines()[0]}): delete it, or restore it") from error


def pretrained_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """Of a name on the hub, or of a folder, with the two tokens around an image.

    Raises:
        UserError: there is none.
    """
    with _asking("tokenizer", name):
        tokenizer = AutoTokenizer.from_pretrained(name)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_START, IMAGE_END]})
    return tokenizer


def saved_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """That of a bundle, as it is.

    Raises:
        UserError: it is corrupt.
    """
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of many kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"its tokenizer cannot be read: {reason}") from error


def build_language_model(
    name: str, pretrained: bool, options: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """A causal language model with an embedding of every token.

    Args:
        name: on the hub, or a folder; without weights also a kind of transformers, as opt or qwen2.
        options: of its config.

    Raises:
        UserError: it cannot be had, or built with these options.
    """
    tokens = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if pretrained:
        with _asking("language model", name):
            model = AutoModelForCausalLM.from_pretrained(name, dtype="float32", **options)
        if len(tokenizer) > embedding_of(model).num_embeddings:
            model.resize_token_embeddings(len(tokenizer))
        return model
    if name in CONFIG_MAPPING:
        config = {"model_type": name, "vocab_size": len(tokenizer), **tokens, **options}
        return from_config(config)
    with _asking("language model's config", name):
        known = AutoConfig.from_pretrained(name).to_dict()
    return from_config({**known, "vocab_size": max(len(tokenizer), known["vocab_size"]), **tokens, **options})


def from_config(config: Mapping[str, Any]) -> PreTrainedModel:
    """The model with random weights of a config's dict, as ``to_dict`` gives it.

    Raises:
        UserError: there is no such model, or it has no such options.
    """
    options = dict(config)
    kind = options.pop("model_type", None)
    if kind not in CONFIG_MAPPING:
        raise UserError(f"vocabulary.language_model: transformers has no kind of model {kind!r}")
    known = set(CONFIG_MAPPING[kind]().to_dict()) | set(PreTrainedConfig().to_dict())
    if strangers := sorted(options.keys() - known):
        raise UserError(f"vocabulary.language_model.options has {strangers[0]!r}, which {kind} does not know")
    try:
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **options))
    except Exception as error:  # of whatever an odd value meets
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"vocabulary.language_model.options do not suit {kind}: {reason}") from error


def embedding_of(model: PreTrainedModel) -> nn.Embedding:
    return cast(nn.Embedding, model.get_input_embeddings())


def width_of(model: PreTrainedModel) -> int:
    """Of its tokens."""
    return embedding_of(model).embedding_dim


def context_of(model: PreTrainedModel) -> int:
    """Tokens that it can take."""
    return model.config.get_text_config().max_position_embeddings


def _wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=END, eos_token=END, clean_up_tokenization_spaces=False
    )
    wrapped.add_special_tokens({"additional_special_tokens": [IMAGE_START, IMAGE_END]})
    return wrapped


@contextlib.contextmanager
def _asking(what: str, name: str | Path) -> Iterator[None]:
    """Make one sentence of what the hub's client and transformers raise."""
    try:
        with contextlib.nullcontext() if Path(name).is_dir() else asked_only_if_reachable():
            yield
    except Exception as error:  # of many kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"vocabulary.language_model.model: the {what} {name} is neither a folder here, nor in the hub's cache, nor "
            f"to be downloaded ({reason}); fetch it where there is a connection, or build one: model: opt, "
            "pretrained: false, tokens: 512"
        ) from error

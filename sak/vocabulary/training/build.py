"""From a config to a model that reads."""

from collections.abc import Iterable

import torch
from omegaconf import DictConfig
from transformers import PreTrainedTokenizerBase

from sak.bundles.bundle import find_bundle, load_bundle
from sak.config.schema import plain
from sak.errors import UserError
from sak.vocabulary.language_model import build_language_model, pretrained_tokenizer, train_tokenizer, width_of
from sak.vocabulary.model import VocabularyModel
from sak.vocabulary.network import VocabularyNetwork
from sak.vocabulary.published import start_from
from sak.vocabulary.vision import Branch, StudentBranch, TeacherBranch, build_vision, merge_of


def build_tokenizer(config: DictConfig, texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """
    Args:
        texts: that it is trained on, if the config asks for that.

    Raises:
        UserError: it cannot be had.
    """
    settings = config.vocabulary
    if settings.weights is not None:
        return pretrained_tokenizer(find_bundle(settings.weights))
    if settings.language_model.tokens is not None:
        return train_tokenizer(texts, settings.language_model.tokens)
    return pretrained_tokenizer(settings.language_model.model)


def build_model(config: DictConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[VocabularyModel, str]:
    """
    Returns:
        the model, and in words what it starts from.

    Raises:
        UserError: the parts of the config do not fit together, or weights cannot be had.
    """
    settings, side = config.vocabulary, config.vocabulary.data.image_size
    torch.manual_seed(config.seed)
    if settings.weights is not None:
        return _trained(config), f"all of {settings.weights}"
    given, language = settings.network, settings.language_model
    network = VocabularyNetwork(given.model, [side, side], plain(given.options), list(given.channels), given.statistics)
    started = f"the network from {start_from(network, given.weights)}" if given.weights else ""
    model = build_language_model(language.model, language.pretrained, plain(language.options), tokenizer)
    if language.pretrained:
        started = "; ".join(filter(None, [started, f"the language model from {language.model}"]))
    branch = None if settings.merge == "none" else build_branch(config)
    vision = build_vision(network, settings.merge, branch, width_of(model))
    return VocabularyModel(vision, model, tokenizer, settings.context), started or "random weights"


def _trained(config: DictConfig) -> VocabularyModel:
    """The model that training goes on with: its networks are what they are, and must be what the config says.

    Raises:
        UserError: there is none, or the config has another form of it.
    """
    settings = config.vocabulary
    model = VocabularyModel.from_pretrained(settings.weights)
    given, side = settings.network, settings.data.image_size
    told = {
        "network.model": given.model,
        "network.options": plain(given.options),
        "network.channels": list(given.channels),
        "network.statistics": given.statistics,
        "data.image_size": [side, side],
        "merge": settings.merge,
    }
    for key, asked in told.items():
        there = merge_of(model.vision) if key == "merge" else model.vision.network.settings[key.partition(".")[2]]
        if there != asked:
            raise UserError(f"vocabulary.weights: {settings.weights} has {there!r} for vocabulary.{key}, not {asked!r}")
    if settings.context is not None:
        model.set_context(settings.context)
    return model


def build_branch(config: DictConfig) -> Branch:
    """The second branch, with its weights.

    Raises:
        UserError: they cannot be had.
    """
    branch = config.vocabulary.branch
    if branch.student is None:
        return TeacherBranch(plain(config.teachers[branch.teacher]))
    try:
        return StudentBranch(load_bundle(find_bundle(branch.student)), branch.source)
    except UserError as error:
        raise UserError(f"vocabulary.branch.student: {error}") from error

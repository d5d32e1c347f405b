"""Samples to train and evaluate a vision vocabulary on. `build` makes what a config asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sak.config.vocabulary import VocabularyDataConfig

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sak.vocabulary.data.mixture import Mixture


def build(data: VocabularyDataConfig | DictConfig, split: str) -> Mixture:
    """The ``train`` or ``val`` samples of a config's section ``vocabulary.data``.

    Raises:
        UserError: a kind is unknown, or what one needs is missing.
    """
    from sak.vocabulary.data.mixture import mixture  # only now: it loads torch

    return mixture(data, split)

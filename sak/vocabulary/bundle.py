"""Models that read as bundles: directories of config.json, model.safetensors and a tokenizer, which hold all of it.

{"format": 1, "kind": "vocabulary", "network": ..., "merge": ..., "branch": ..., "language_model": ..., "context": ...}
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import Self

from sak.bundles.bundle import find_bundle
from sak.errors import UserError
from sak.files import read_json, replacing_directory
from sak.student.hub import CONFIG, FORMAT_KEY, WEIGHTS
from sak.tensors import read_tensors, writing_safetensors
from sak.vocabulary.language_model import from_config, saved_tokenizer, width_of
from sak.vocabulary.network import VocabularyNetwork
from sak.vocabulary.vision import Vision, branch_settings, build_branch, build_vision, merge_of

FORMAT = 1
KIND = "vocabulary"
KEYS = ("network", "merge", "branch", "language_model", "context")


class VocabularyFiles(nn.Module):
    """What of a model that reads is about its files."""

    vision: Vision
    language_model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    context: int

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Write the bundle in place of what is there; the directory appears whole or not at all.

        Raises:
            OSError: it cannot be written, as on a full disk.
        """
        config = {
            FORMAT_KEY: FORMAT,
            "kind": KIND,
            "network": self.vision.network.settings,
            "merge": merge_of(self.vision),
            "branch": branch_settings(self.vision),
            "language_model": self.language_model.config.to_dict(),
            "context": self.context,
        }
        state, copies = self.state_dict(), _copies(self)
        tensors = {name: value.detach().cpu().contiguous() for name, value in state.items() if name not in copies}
        with replacing_directory(directory) as partial, writing_safetensors(directory):
            (partial / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            safetensors.torch.save_file(tensors, partial / WEIGHTS, {"format": "pt"})
            self.tokenizer.save_pretrained(partial)

    @classmethod
    def from_pretrained(cls, place: str | os.PathLike) -> Self:
        """The model of a bundle, or of a finished run, in eval mode.

        Raises:
            UserError: there is none, it is corrupt, of something else, or a newer sak has written it.
        """
        bundle = find_bundle(place)
        config = _config(bundle)
        try:
            model = cls(**_parts(config, bundle))
        except UserError as error:
            raise UserError(f"{bundle} cannot be read as a bundle ({error})") from error
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # of whatever stands there
            raise UserError(f"{bundle} cannot be read as a bundle ({CONFIG}: {error})") from error
        load_weights(model, _tensors(bundle / WEIGHTS), bundle)
        return model.eval()


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Strictly; weights that a model has under two names need stand there under one.

    Raises:
        UserError: some are missing, unknown, of another shape, or not finite.
    """
    own, state = model.state_dict(), dict(tensors)
    for copy, first in _copies(model).items():
        if first in state:
            state.setdefault(copy, state[first])
    for names, problem in (
        ([name for name in own if name not in state], "lacks"),
        ([name for name in state if name not in own], "holds unknown"),
        ([name for name in own if state.get(name, own[name]).shape != own[name].shape], "has another shape of"),
        ([name for name, value in state.items() if not torch.isfinite(value.float()).all()], "is not finite in"),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(f"{source} {problem} {names[0]}{more}: it is corrupt, or of another model")
    model.load_state_dict(state, strict=True)


def _config(bundle: Path) -> dict[str, Any]:
    config = read_json(bundle / CONFIG)
    if config.get("kind") != KIND:
        raise UserError(f"{bundle} holds no model that reads: it is the bundle of something else, as of a student")
    if config.get(FORMAT_KEY) != FORMAT:
        raise UserError(
            f"{bundle} has been written by a newer sak (format {config.get(FORMAT_KEY)!r}, known: {FORMAT}): update sak"
        )
    return read_json(bundle / CONFIG, KEYS)


def _parts(config: Mapping[str, Any], bundle: Path) -> dict[str, Any]:
    """The arguments of a `VocabularyModel`, with random weights."""
    language_model = from_config(config["language_model"])
    branch = build_branch(config["branch"]) if config["branch"] is not None else None
    return {
        "vision": build_vision(
            VocabularyNetwork(**config["network"]), config["merge"], branch, width_of(language_model)
        ),
        "language_model": language_model,
        "tokenizer": saved_tokenizer(bundle),
        "context": config["context"],
    }


def _tensors(file: Path) -> dict[str, Tensor]:
    content = read_tensors(file)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{file} is corrupt (it is no flat dict of tensors): restore it")
    return content


def _copies(model: nn.Module) -> dict[str, str]:
    """{name: the first name of the same weight} of those that have several, as embeddings that are the head too."""
    first: dict[int, str] = {}
    copies = {}
    for name, value in model.state_dict(keep_vars=True).items():
        known = first.setdefault(id(value), name)
        if known != name:
            copies[name] = known
    return copies

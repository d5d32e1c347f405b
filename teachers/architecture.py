"""What no tensor's shape tells of a network: weights load into another number of heads and give other features.

Where a file of weights notes it, as those of the miniatures do in the header of safetensors, it is compared.
"""

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from sak.errors import UserError

NOTES = "sak_network"  # the key of the header, whose text is JSON


def facts_of(network: nn.Module) -> dict[str, Any]:
    """Attention heads, windows, activations and norms, as JSON; one value where all parts of the network agree."""
    parts = list(network.modules())
    kinds = {type(part).__name__ for part in parts}
    found: dict[str, list] = {
        "num_heads": [part.num_heads for part in parts if isinstance(getattr(part, "num_heads", None), int)],
        "window_size": [part.window_size for part in parts if isinstance(getattr(part, "window_size", None), int)],
        "activation": sorted(kind for kind in kinds if kind.endswith(("GELU", "ReLU", "SiLU"))),
        "norm_eps": [part.eps for part in parts if isinstance(part, nn.LayerNorm)],
    }
    return {fact: values if len(set(values)) > 1 else values[0] for fact, values in found.items() if values}


def noted(header: Mapping[str, str], source: object) -> dict[str, Any]:
    """The facts in a file's header, if it has any.

    Raises:
        UserError: they cannot be read.
    """
    try:
        facts = json.loads(header.get(NOTES, "{}"))
    except ValueError as error:
        raise UserError(f"the notes in the header of {source} cannot be read; fetch the file again") from error
    return facts if isinstance(facts, dict) else {}


def mismatch(network: nn.Module, facts: Mapping[str, Any]) -> str | None:
    """How a network is not what the file of its weights notes, if it is not."""
    for fact, here in facts_of(network).items():
        if facts.get(fact, here) != here:
            return f"is of a network with {fact} {facts[fact]}, but {fact} is {here} here"
    return None


def compare(network: nn.Module, facts: Mapping[str, Any], source: object, teacher: str) -> None:
    """Raise a `UserError` where a network is not what the file of its weights notes."""
    if problem := mismatch(network, facts):
        raise UserError(f"teacher {teacher}: {source} {problem}; correct model and options.")

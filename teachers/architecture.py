"""What no tensor's shape tells of a network: weights load into another number of heads and give other features.

Where a file of weights notes it, as those of the miniatures do in the header of safetensors, it is compared.
"""

from collections.abc import Mapping, Sequence

from torch import nn

from sak.errors import UserError


def facts_of(network: nn.Module) -> dict[str, str]:
    """The network's attention heads, windows, activations and norms as text, each once if all of its parts agree."""
    parts = list(network.modules())
    found: dict[str, list] = {
        "num_heads": [part.num_heads for part in parts if isinstance(getattr(part, "num_heads", None), int)],
        "window_size": [part.window_size for part in parts if isinstance(getattr(part, "window_size", None), int)],
        "activation": sorted(
            {kind for part in parts if (kind := type(part).__name__).endswith(("GELU", "ReLU", "SiLU"))}
        ),
        "norm_eps": [part.eps for part in parts if isinstance(part, nn.LayerNorm)],
    }
    return {fact: _text(values) for fact, values in found.items() if values}


def compare(network: nn.Module, facts: Mapping[str, str], source: object, teacher: str) -> None:
    """Raise a `UserError` where a network is not what the file of its weights notes."""
    for fact, here in facts_of(network).items():
        if facts.get(fact, here) != here:
            raise UserError(
                f"teacher {teacher}: {source} is of a network with {fact} {facts[fact]}, but {fact} is {here} here; "
                "correct model and options."
            )


def _text(values: Sequence[object]) -> str:
    return " ".join(map(str, values[:1] if len(set(values)) == 1 else values))

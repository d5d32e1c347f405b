"""What trainings and tools put around the weights of a network, and how it is taken off.

    {"model": {"module.blocks.0...": ...}, "optimizer": ..., "epoch": 3}    a training's checkpoint
    {"teacher": {"backbone.blocks.0.3.attn...": ..., "dino_head...": ...}}  DINOv2's own, with its blocks in chunks
    {"state_dict": {"model._orig_mod.visual.conv1...": ...}}                Lightning's, of a compiled network

What lies around the names is told by the names that the network expects.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor

from sak.errors import UserError

# Where several lie side by side, the first of these is meant: an average before what was averaged.
WRAPPERS = (
    "teacher", "model_ema", "ema_model", "state_dict_ema", "ema", "model", "model_state_dict", "state_dict", "module",
)  # fmt: skip
OF_TORCH = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # anywhere in a name
CHUNK = re.compile(r"((?:.*\.)?blocks)\.(\d+)\.(\d+)\.(.+)")
ADVICE = "save the model's state_dict alone."


class State(dict[str, Tensor]):
    """Tensors by their names, and what is known of the file that they are from.

    Attributes:
        unwrapped: what was taken off the names, or from around all of them.
        beside: names that lay outside of what was around the network.
        facts: the file's own notes about the network (`teachers.architecture`).
    """

    def __init__(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None):
        super().__init__(tensors)
        self.facts = dict(facts or {})
        self.unwrapped: list[str] = []
        self.beside: list[str] = []

    def replaced(self, tensors: Mapping[str, Tensor], unwrapped: str = "", beside: Iterable[str] = ()) -> "State":
        """Other tensors of the same file, from which more was taken off."""
        state = State(tensors, self.facts)
        state.unwrapped = [*self.unwrapped, *filter(None, [unwrapped])]
        state.beside = [*self.beside, *beside]
        return state


def opened(content: object, source: object, facts: Mapping[str, Any] | None = None) -> State:
    """The tensors of a file, out of the dicts in which they lie, by names without what torch itself puts into them.

    Raises:
        UserError: it has none, or none that are meant.
    """
    path = []
    while (key := _meant(content)) is not None:
        path.append(str(key))
        content = content[key]  # type: ignore[index]
    tensors = content.items() if isinstance(content, Mapping) else ()
    state = State({str(key): value for key, value in tensors if isinstance(value, Tensor)}, facts)
    if not state:
        sets = sorted(map(str, _sets(content)))
        problem = f"holds several sets of tensors ({', '.join(sets)})" if sets else "is not a flat dict of tensors"
        raise UserError(f"{source} {problem}; {ADVICE}")
    state = state.replaced(state, ".".join(path))
    for part in OF_TORCH:
        if any(part in name.split(".") for name in state):
            names = {name: ".".join(each for each in name.split(".") if each != part) for name in state}
            state = _renamed(state, names, part, source)
    if all(name.startswith("module.") for name in state):
        state = _renamed(state, {name: name.removeprefix("module.") for name in state}, "module", source)
    return state


def of_network(state: State, names: Collection[str], prefix: str, source: object) -> State:
    """The tensors by the names of a library's own checkpoints, which are `prefix` and the network's own.

    Args:
        names: the network's own.

    Raises:
        UserError: it lies there several times, and none of them is the one that is usually meant.
    """
    state = _without_chunks(state, names, source)
    around = _around(state, set(names), source)
    if around is None:  # other names, which a library may know how to convert
        while (first := _first_of_all(state)) in WRAPPERS:
            state = _renamed(state, {name: name.removeprefix(f"{first}.") for name in state}, first, source)
        return state
    bare = not around.endswith(prefix)  # the network without the names that the whole model gives it
    wrapper = around if bare else around.removesuffix(prefix)
    inside = {name.removeprefix(wrapper): value for name, value in state.items() if name.startswith(wrapper)}
    if bare:
        inside = {prefix + name: value for name, value in inside.items()}
    beside = [name for name in state if not name.startswith(wrapper)]
    return state.replaced(inside, wrapper.rstrip("."), beside)


def _meant(content: object) -> object:
    """The key of a dict under which its tensors lie; None: they lie there themselves, or nowhere."""
    inner = _sets(content)
    if (known := next((key for key in WRAPPERS if key in inner), None)) is not None:
        return known
    others = [key for key in inner if not str(key).startswith("opt")]  # an optimizer's states are tensors too
    flat = isinstance(content, Mapping) and any(isinstance(value, Tensor) for value in content.values())
    return others[0] if len(others) == 1 and not flat else None


def _sets(content: object) -> list:
    """The keys of a dict under which there are dicts with tensors somewhere inside."""
    if not isinstance(content, Mapping):
        return []
    return [
        key
        for key, value in content.items()
        if isinstance(value, Mapping) and (_sets(value) or any(isinstance(each, Tensor) for each in value.values()))
    ]


def _around(state: State, names: set[str], source: object) -> str | None:
    """What stands before the network's names in the file; None where most of them are not there."""
    found: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for place in range(len(parts)):
            if ".".join(parts[place:]) in names:
                found[".".join(parts[:place]) + "." * bool(place)] += 1
    most = max(found.values(), default=0)
    if 2 * most <= len(names):
        return None
    best = sorted((start for start, count in found.items() if count == most), key=_rank)
    if len(best) > 1 and _rank(best[0]) == _rank(best[1]):
        raise UserError(f"{source} holds the network twice, as {best[0] or 'it is'} and as {best[1]}; {ADVICE}")
    return best[0]


def _rank(start: str) -> int:
    return min((WRAPPERS.index(part) for part in start.split(".") if part in WRAPPERS), default=len(WRAPPERS))


def _first_of_all(state: State) -> str:
    """The first part that all names share, if they do."""
    first = next(iter(state)).partition(".")[0]
    return first if all(name.startswith(f"{first}.") for name in state) else ""


def _without_chunks(state: State, names: Iterable[str], source: object) -> State:
    """Blocks that lie in chunks, as `blocks.0.3.norm1` in DINOv2's training, are numbered through."""
    chunked = {name: found for name in state if (found := CHUNK.fullmatch(name)) and found[3].isdigit()}
    if not chunked or any(CHUNK.fullmatch(name) for name in names):
        return state
    places: dict[str, set[tuple[int, int]]] = {}
    for found in chunked.values():
        places.setdefault(found[1], set()).add((int(found[2]), int(found[3])))
    number = {(start, *place): count for start, there in places.items() for count, place in enumerate(sorted(there))}
    renamed = {
        name: f"{found[1]}.{number[found[1], int(found[2]), int(found[3])]}.{found[4]}"
        for name, found in chunked.items()
    }
    return _renamed(state, {**{name: name for name in state}, **renamed}, "blocks in chunks", source)


def _renamed(state: State, names: Mapping[str, str], unwrapped: str, source: object) -> State:
    renamed = {names[name]: value for name, value in state.items()}
    if len(renamed) < len(state):
        raise UserError(f"{source} holds several tensors of one name without {unwrapped}; {ADVICE}")
    return state.replaced(renamed, unwrapped)

"""Weights that a vocabulary network starts from: Vary's published ones, SAM's, and those of a bundle of ours.

The published code has the network under several names, in files that hold a whole model:

    visual_encoder.                   Vary-tiny-600k, beside opt_proj and opt_model
    model.vision_tower(_2|_high).     Vary-tiny, beside OPT; GOT-OCR2.0, beside Qwen2
    transformer.vision_tower_high.    Vary and Vary-toy, beside CLIP, as vision_tower, and Qwen
"""

import re
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from sak.errors import UserError
from sak.files import shipped
from sak.tensors import read_tensors
from sak.vocabulary.bundle import load_weights
from sak.vocabulary.network import FIRST, VocabularyNetwork
from teachers.base import resize_position_embedding
from teachers.checkpoints import State, opened

LAST = f"net_{FIRST + 1}.weight"  # of the network's own names, in all that is published
# What else these files hold: projections, language models, CLIP.
BESIDE = (
    "opt_proj.", "opt_model.", "lm_head.", "model.mm_projector", "model.decoder.", "model.embed_tokens.",
    "model.layers.", "model.norm.", "transformer.mm_projector", "transformer.vision_tower.", "transformer.wte.",
    "transformer.h.", "transformer.ln_f.",
)  # fmt: skip
OURS = "vision.network."  # in a bundle
OF_SAM = "image_encoder."
SAMS = ("prompt_encoder.", "mask_decoder.")


def load_vary(path: str | Path, statistics: str = "clip") -> VocabularyNetwork:
    """The vocabulary network in a file of published weights (or a folder with its shards), sizes told by the weights.

    Args:
        statistics: of the pixels that it was trained with: clip of Vary-tiny-600k, Vary-toy and GOT-OCR2.0, imagenet
            of Vary.

    Raises:
        UserError: the file cannot be read, holds no such network, lacks a weight, or holds one that nobody knows.
    """
    state = _read(Path(path).expanduser())
    starts = [key.removesuffix(LAST) for key in state if key.endswith(LAST)]
    if len(starts) != 1:
        count = "no" if not starts else f"{len(starts)}"
        raise UserError(f"{path} holds {count} vocabulary networks ({LAST}): give published weights of Vary")
    start = starts[0]
    own = State({key.removeprefix(start): value for key, value in state.items() if key.startswith(start)})
    try:
        network = VocabularyNetwork("vit_b", **_sizes(own), statistics=statistics)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{path} is no vocabulary network: its tensors do not make one ({error})") from error
    load_weights(network, own, path)
    _refuse_strangers(state, start, BESIDE, path)
    return network


def start_from(network: VocabularyNetwork, path: str | Path) -> str:
    """Load a network's weights; positions of another image size are resized.

    Args:
        path: published weights as of `load_vary`, SAM's (``image_encoder.``; the convolutions keep their random start),
            or a run or bundle of ours.

    Returns:
        what was loaded, in words.

    Raises:
        UserError: they cannot be read, or do not fit the network.
    """
    path = Path(path).expanduser()
    bundle = next((place for place in (path / "student", path) if (place / "model.safetensors").is_file()), None)
    state = _read(bundle / "model.safetensors" if bundle and (bundle / "config.json").is_file() else path)
    new = [name for name in network.state_dict() if name.startswith("net_")]
    found = [key.removesuffix(new[-1]) for key in state if key.endswith(new[-1])]
    if len(found) > 1:
        raise UserError(f"{path} holds {len(found)} vocabulary networks, where one is to be started from")
    start = found[0] if found else OF_SAM
    if not any(key.startswith(start) for key in state):
        raise UserError(
            f"{path} holds neither a vocabulary network nor SAM's image_encoder: see vocabulary.network.weights"
        )
    own = {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
    fresh = {name: value for name, value in network.state_dict().items() if not found and name in new}
    load_weights(network, _resized({**own, **fresh}, network), path)
    _refuse_strangers(state, start, (*BESIDE, *SAMS) if start != OURS else ("vision.", "language_model."), path)
    return f"{path}" if found else f"SAM's encoder in {path}; its convolutions from random weights"


def _read(path: Path) -> State:
    """All tensors of a file, or of the shards in a folder.

    Raises:
        UserError: there are none.
    """
    if not path.is_dir():
        return opened(read_tensors(path if path.exists() else shipped("teachers").parent / path), path)
    for pattern in ("*.safetensors", "*.bin", "*.pth"):
        if files := sorted(path.glob(pattern)):
            return State({key: value for file in files for key, value in opened(read_tensors(file), file).items()})
    raise UserError(f"{path} has no weights in it: neither *.safetensors nor *.bin nor *.pth")


def _sizes(own: State) -> dict[str, Any]:
    """The arguments of the network that the weights are of."""
    width, _, patch, _ = own["patch_embed.proj.weight"].shape
    depth = 1 + max(int(key.split(".")[1]) for key in own if key.startswith("blocks."))
    _, h, w, _ = own["pos_embed"].shape
    reach = [(own[f"blocks.{index}.attn.rel_pos_h"].shape[0] + 1) // 2 for index in range(depth)]
    wide = [index for index in range(depth) if reach[index] == h]
    windows = {side for side in reach if side != h} or {0}
    if len(windows) > 1:
        raise ValueError(f"windows of {sorted(windows)} tokens")
    options = {
        "embed_dim": width,
        "depth": depth,
        "num_heads": width // own["blocks.0.attn.rel_pos_h"].shape[1],
        "patch_size": patch,
        "window_size": windows.pop(),
        "global_attn_indexes": wide,
        "out_chans": own["neck.0.weight"].shape[0],
        "mlp_ratio": own["blocks.0.mlp.lin1.weight"].shape[0] / width,
    }
    convolutions = sorted(name for name in own if re.fullmatch(r"net_\d\.weight", name))
    return {
        "image_size": [h * patch, w * patch],
        "options": options,
        "channels": [len(own[name]) for name in convolutions],
    }


def _resized(own: dict[str, Tensor], network: VocabularyNetwork) -> dict[str, Tensor]:
    """Positions at the network's own grid, as segment_anything resizes them on the fly."""
    wanted, resized = network.state_dict(), dict(own)
    for name, value in own.items():
        size = wanted[name].shape if name in wanted else value.shape
        if value.ndim != len(size) or value.shape == size:
            continue
        if name == "pos_embed" and value.shape[-1] == size[-1]:
            resized[name] = resize_position_embedding(value.permute(0, 3, 1, 2), (size[1], size[2])).permute(0, 2, 3, 1)
        elif ".rel_pos_" in name and value.shape[-1] == size[-1]:
            resized[name] = F.interpolate(value.T[None], size=size[0], mode="linear")[0].T
    return resized


def _refuse_strangers(state: State, start: str, beside: tuple[str, ...], path: str | Path) -> None:
    strangers = [key for key in state if not key.startswith((start, *beside))]
    if strangers:
        more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
        raise UserError(f"{path} holds {strangers[0]}{more}, which is no part of a model of Vary, of SAM or of ours")

"""Read checkpoints of the published SAK code (its key names, its module layout) into our Student."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from sak import tasks as task_registry
from sak.student import Student

PUBLISHED_TEACHERS = ("dinov2", "clip", "sam")
TASK_NAMES = {"sal": "saliency"}  # published name -> ours


def load_official(
    checkpoint: str | os.PathLike | Mapping[str, Tensor],
    image_size: tuple[int, int],
    dataset: str,
    num_heads: int | None = None,
    teachers: tuple[str, ...] | None = None,
) -> Student:
    """Build a Student, in eval mode, from a stage-1 or stage-2 checkpoint of the published code.

    Widths, depth, levels, teachers, tasks, aligners and routers are found from the weights.

    Args:
        checkpoint: a path (.pth or .safetensors) or a state dict, with or without the published ``model`` key.
        image_size: (H, W) that the checkpoint was trained at: its position embedding must fit.
        dataset: ``pascal_context`` or ``nyud``; its tasks must have the checkpoint's channels.
        num_heads: attention heads of the stem; width / 64 unless given.
        teachers: the routers' order of teachers. Unless given, it is the checkpoint's own order, or
            dinov2, clip, sam where the file format has sorted the keys and that order is lost.

    Raises:
        ValueError: the weights do not fit the arguments, or a key is missing or left over (named).
    """
    weights = _read(checkpoint)
    names = list(teachers or _teacher_order(weights))
    blocks = 1 + max(_numbers(weights, r"backbone\.vit\.blocks\.(\d+)\."))
    patch_weight = _get(weights, "backbone.vit.patch_embed.proj.weight")
    width, patch = patch_weight.shape[0], patch_weight.shape[-1]
    if num_heads is None:
        num_heads, remainder = divmod(width, 64)
        if remainder:
            raise ValueError(f"the stem's width {width} is no multiple of 64: give num_heads")
    tokens = (image_size[0] // patch) * (image_size[1] // patch) + 1
    if (found := _get(weights, "backbone.vit.pos_embed").shape[1]) != tokens:
        raise ValueError(
            f"the checkpoint's position embedding has {found} tokens, but {image_size[0]}x{image_size[1]} "
            f"at patch {patch} needs {tokens}: give the image size that it was trained at"
        )
    levels = sorted(set(_numbers(weights, r"backbone\.out_norms\.(\d+)_")))
    aligned = any(key.startswith("backbone.ts_aligners.") for key in weights)
    channels = {
        match[1]: weight.shape[0]
        for key, weight in weights.items()
        if (match := re.fullmatch(r"heads\.(\w+)\.last_conv\.weight", key))
    }
    gates = [w for key, w in weights.items() if re.fullmatch(r"backbone\.mor\..*\.router\.module\.3\.weight", key)]
    tasks = {TASK_NAMES.get(task, task): count for task, count in channels.items()}
    for task, count in tasks.items():
        expected = task_registry.build(task, dataset).channels
        if count != expected:
            raise ValueError(f"the checkpoint's {task} head has {count} channels, but {dataset} needs {expected}")
    student = Student(
        stem="vit_base_patch16_384",
        stem_options={"embed_dim": width, "depth": blocks, "num_heads": num_heads, "patch_size": patch},
        image_size=list(image_size),
        tasks=dict(sorted(tasks.items(), key=lambda item: list(task_registry.TASKS).index(item[0]))),
        teachers={name: [_teacher_width(weights, name, level, width) for level in levels] for name in names},
        levels=levels,
        adapter_ratio=width // _get(weights, f"backbone.tsap.{names[0]}.0.down.weight").shape[0],
        aligner=True if aligned else None,
        router="mor" if gates or not tasks else "sum",
        noisy_gating=not gates or gates[0].shape[0] == 2 * (1 + len(names)),
    )
    renamed = {_our_key(key, levels): value for key, value in weights.items()}
    ours = student.state_dict()
    if missing := sorted(ours.keys() - renamed.keys()):
        raise ValueError(f"the checkpoint lacks {len(missing)} weights, the first is {missing[0]}")
    if leftover := sorted(key for key in weights if _our_key(key, levels) not in ours):
        raise ValueError(f"the checkpoint has {len(leftover)} weights that no part takes, the first is {leftover[0]}")
    for key, value in renamed.items():
        if value.shape != ours[key].shape:
            raise ValueError(f"{key} has shape {tuple(value.shape)} in the checkpoint, not {tuple(ours[key].shape)}")
    student.load_state_dict(renamed, strict=True)
    return student.eval()


def _read(checkpoint: str | os.PathLike | Mapping[str, Tensor]) -> dict[str, Tensor]:
    if isinstance(checkpoint, Mapping):
        weights = checkpoint
    elif not Path(checkpoint).is_file():
        raise ValueError(f"no checkpoint at {checkpoint}")
    elif Path(checkpoint).suffix == ".safetensors":
        weights = safetensors.torch.load_file(checkpoint)
    else:
        weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
    weights = dict(weights.get("model", weights))
    if not any(key.startswith("backbone.tsap.") for key in weights):
        raise ValueError("not a checkpoint of the published SAK code: it has no key backbone.tsap.*")
    return weights


def _teacher_order(weights: Mapping[str, Tensor]) -> list[str]:
    keys = [match for key in weights if (match := re.fullmatch(r"backbone\.tsap\.(.+)\.(\d+)\.scale", key))]
    names = list(dict.fromkeys(match[1] for match in keys))
    numbers = [match[2] for match in keys if match[1] == names[0]]
    if numbers == sorted(numbers, key=int) and numbers != sorted(numbers):
        return names  # 2 before 10: the model's own order, not a file format's alphabetical one
    return sorted(names, key=lambda name: (*PUBLISHED_TEACHERS, name).index(name))


def _teacher_width(weights: Mapping[str, Tensor], teacher: str, level: int, width: int) -> int:
    aligner = weights.get(f"backbone.ts_aligners.{level}_{teacher}.weight")
    return width if aligner is None else aligner.shape[0]


def _our_key(key: str, levels: list[int]) -> str:
    """The published name of a weight -> its name in our Student."""

    def level(block: str) -> int:
        return levels.index(int(block)) if int(block) in levels else -1

    rules = [
        (r"backbone\.vit\.(.+)", lambda m: f"stem.vit.{m[1]}"),
        (r"backbone\.tsap\.(\w+)\.(\d+\..+)", lambda m: f"paths.{m[1]}.adapters.{m[2]}"),
        (r"backbone\.out_norms\.(\d+)_(\w+)\.(.+)", lambda m: f"paths.{m[2]}.norms.{level(m[1])}.{m[3]}"),
        (r"backbone\.ts_aligners\.(\d+)_(\w+)\.(.+)", lambda m: f"paths.{m[2]}.aligners.{level(m[1])}.{m[3]}"),
        (
            r"backbone\.mor\.(\d+)_(\w+)\.router\.module\.(.+)",
            lambda m: f"routers.{TASK_NAMES.get(m[2], m[2])}.{level(m[1])}.gate.{m[3]}",
        ),
        (r"heads\.(\w+)\.linears\.(.+)", lambda m: f"heads.{TASK_NAMES.get(m[1], m[1])}.projections.{m[2]}"),
        (r"heads\.(\w+)\.linear_fuse\.(.+)", lambda m: f"heads.{TASK_NAMES.get(m[1], m[1])}.fuse.{m[2]}"),
        (r"heads\.(\w+)\.last_conv\.(.+)", lambda m: f"heads.{TASK_NAMES.get(m[1], m[1])}.classify.{m[2]}"),
    ]
    for pattern, rename in rules:
        if match := re.fullmatch(pattern, key):
            return rename(match)
    return key


def _numbers(weights: Mapping[str, Tensor], pattern: str) -> list[int]:
    numbers = [int(match[1]) for key in weights if (match := re.match(pattern, key))]
    if not numbers:
        raise ValueError(f"the checkpoint has no key like {pattern}")
    return numbers


def _get(weights: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in weights:
        raise ValueError(f"the checkpoint lacks {key}")
    return weights[key]

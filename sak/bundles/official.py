"""Read checkpoints of the published SAK code (its key names, its module layout) into our Student."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from sak import data
from sak.bundles.tasks import records, tasks_by_channels
from sak.errors import UserError
from sak.student import Student
from sak.tasks import TASKS
from sak.tensors import read_tensors

# (H, W) of the published trainings: PASCAL-Context, NYUD-v2, and stage 1. Their token grids all differ.
PUBLISHED_SIZES = ((512, 512), (448, 576), (384, 384))
PUBLISHED_TEACHERS = ("dinov2", "clip", "sam")
TASK_NAMES = {"sal": "saliency"}  # published name -> ours


def load_official(
    checkpoint: str | os.PathLike | Mapping[str, Tensor],
    image_size: tuple[int, int] | None = None,
    dataset: str | None = None,
    num_heads: int | None = None,
    teachers: tuple[str, ...] | None = None,
) -> Student:
    """Build a Student, in eval mode, from a stage-1 or stage-2 checkpoint of the published code.

    Widths, depth, levels, teachers, tasks, aligners and routers are found from the weights.

    Args:
        checkpoint: a path (.pth or .safetensors) or a state dict, with or without the published ``model`` key.
        image_size: (H, W) that the checkpoint was trained at: its position embedding must fit. Unless given, that
            one of the published trainings whose grid it fits.
        dataset: ``pascal_context`` or ``nyud``; its tasks must have the checkpoint's channels. Unless given, no data
            set is asked whether they do.
        num_heads: attention heads of the stem, which its weights do not tell; width / 64 unless given.
        teachers: the routers' order of teachers. Unless given, it is the checkpoint's own order, or
            dinov2, clip, sam where the file format has sorted the keys and that order is lost.

    Raises:
        UserError: there is no readable checkpoint, the weights do not fit the arguments, or a key is missing or left
            over (named).
    """
    if dataset:
        data.described(dataset)  # a wrong name is told before the work
    weights = _read(checkpoint)
    where = "the checkpoint" if isinstance(checkpoint, Mapping) else str(checkpoint)
    try:
        return _student(weights, image_size, dataset, num_heads, teachers)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _student(
    weights: Mapping[str, Tensor],
    image_size: tuple[int, int] | None,
    dataset: str | None,
    num_heads: int | None,
    teachers: tuple[str, ...] | None,
) -> Student:
    names = list(teachers or _teacher_order(weights))
    blocks = 1 + max(_numbers(weights, r"backbone\.vit\.blocks\.(\d+)\."))
    patch_weight = _get(weights, "backbone.vit.patch_embed.proj.weight")
    width, patch = patch_weight.shape[0], patch_weight.shape[-1]
    if num_heads is None:
        num_heads, remainder = divmod(width, 64)
        if remainder:
            raise ValueError(f"the stem's width {width} is no multiple of 64: give num_heads")
    elif num_heads < 1 or width % num_heads:
        raise ValueError(f"num_heads is {num_heads}, which does not divide the stem's width {width}")
    image_size = _image_size(_get(weights, "backbone.vit.pos_embed").shape[1], patch, image_size)
    levels = sorted(set(_numbers(weights, r"backbone\.out_norms\.(\d+)_")))
    aligned = any(key.startswith("backbone.ts_aligners.") for key in weights)
    channels = {
        match[1]: weight.shape[0]
        for key, weight in weights.items()
        if (match := re.fullmatch(r"heads\.(\w+)\.last_conv\.weight", key))
    }
    gates = [w for key, w in weights.items() if re.fullmatch(r"backbone\.mor\..*\.router\.module\.3\.weight", key)]
    tasks = {TASK_NAMES.get(task, task): count for task, count in channels.items()}
    if dataset:
        known = {task: data.described(dataset).build(task) for task in tasks}
        for task, count in tasks.items():
            if count != (expected := known[task].channels):
                raise ValueError(f"the {task} head has {count} channels, but {dataset} needs {expected}")
    if strangers := sorted(tasks.keys() - TASKS.keys()):
        raise ValueError(f"there is a head for the unknown task {strangers[0]!r}")
    if not dataset:
        known = tasks_by_channels(tasks)
    student = Student(
        stem="vit_base_patch16_384",
        stem_options={"embed_dim": width, "depth": blocks, "num_heads": num_heads, "patch_size": patch},
        image_size=list(image_size),
        tasks=dict(sorted(tasks.items(), key=lambda item: list(TASKS).index(item[0]))),
        teachers={name: [_teacher_width(weights, name, level, width) for level in levels] for name in names},
        levels=levels,
        adapter_ratio=width // _get(weights, f"backbone.tsap.{names[0]}.0.down.weight").shape[0],
        aligner=True if aligned else None,
        router="mor" if gates or not tasks else "sum",
        descriptions=records(known),
        noisy_gating=not gates or gates[0].shape[0] == 2 * (1 + len(names)),
    )
    renamed = {_our_key(key, levels): value for key, value in weights.items()}
    ours = student.state_dict()
    if missing := sorted(ours.keys() - renamed.keys()):
        raise ValueError(f"{len(missing)} weights are missing, the first is {missing[0]} (by the student's name)")
    if leftover := sorted(key for key in weights if _our_key(key, levels) not in ours):
        raise ValueError(f"{len(leftover)} weights are left over, the first is {leftover[0]}")
    for key, value in weights.items():
        if value.shape != (expected := ours[_our_key(key, levels)].shape):
            raise ValueError(f"{key} has shape {tuple(value.shape)}, not {tuple(expected)}")
    student.load_state_dict(renamed, strict=True)
    return student.eval()


def _image_size(tokens: int, patch: int, given: tuple[int, int] | None) -> tuple[int, int]:
    """The given size, or the published one whose grid has so many tokens (with the class token)."""

    def needed(size: tuple[int, int]) -> int:
        return (size[0] // patch) * (size[1] // patch) + 1

    fitting = [size for size in ([given] if given else PUBLISHED_SIZES) if needed(size) == tokens]
    if fitting:
        return fitting[0]
    tried = (
        f"{given[0]}x{given[1]} at patch {patch} needs {needed(given)}" if given else "no published size has so many"
    )
    raise ValueError(
        f"the position embedding has {tokens} tokens, but {tried}: give the image size that it was trained at"
    )


def _read(checkpoint: str | os.PathLike | Mapping[str, Tensor]) -> dict[str, Tensor]:
    where = "the mapping"
    weights = checkpoint
    if not isinstance(checkpoint, Mapping):
        where = str(checkpoint)
        if not Path(checkpoint).is_file():
            raise UserError(f"no checkpoint at {checkpoint}")
        weights = read_tensors(checkpoint)
    if isinstance(weights, Mapping):
        weights = weights.get("model", weights)
    named = {str(key): value for key, value in weights.items()} if isinstance(weights, Mapping) else {}
    if any(key.startswith("tsap.") for key in named):
        # Of stage 1, where the published model is the backbone alone, and its names begin with its parts.
        named = {f"backbone.{key}": value for key, value in named.items()}
    if not any(key.startswith("backbone.tsap.") for key in named):
        raise UserError(f"{where} is no checkpoint of the published SAK code: it has no key backbone.tsap.* or tsap.*")
    return named


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
        plain = pattern.replace(r"(\d+)", "N").replace("\\", "")  # for people
        raise ValueError(f"it has no weights {plain}*, N a number: it is no whole checkpoint")
    return numbers


def _get(weights: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in weights:
        raise ValueError(f"{key} is missing")
    return weights[key]

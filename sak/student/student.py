"""The student: stem, one adapter path per teacher, routers per task and level, one head per task.

Shapes: B batch, N patch tokens, D stem width, D_t teacher width, T teachers, H,W image, h,w token grid.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from sak.student.adapter import AdapterPath, StemPath, TeacherPath
from sak.student.draws import Draws
from sak.student.head import build_head
from sak.student.hub import BundleFiles
from sak.student.interface import Encoding, StudentOutput, warned_of_range
from sak.student.recomputation import recomputed
from sak.student.router import FIXED, LEARNED, build_router, plain_sum
from sak.student.stem import Stem

ROUTERS = (*LEARNED, *FIXED)
PATHS = ("adapter", "none")


class Student(
    nn.Module,
    BundleFiles,
    library_name="sak",
    tags=["multi-task", "distillation", "semantic-segmentation"],
):
    """The Swiss Army Knife student (SAK, arXiv 2410.14633).

    All arguments are plain values: with them ``save_pretrained`` writes a bundle (config.json and
    model.safetensors) that ``from_pretrained`` reads back.

    Args:
        stem: the timm name of the stem.
        image_size: (H, W) of training; other sizes that the patch divides work too.
        tasks: {task: output channels}, or such pairs.
        teachers: {teacher: its width at each level}, or such pairs; their order is that of the routers' sources.
        levels: the stem's blocks (0-based) whose features are distilled and decoded.
        stem_options: overrides of timm's architecture.
        paths: ``adapter`` (one adapter path per teacher) or ``none`` (many-to-one distillation: every teacher is
            distilled straight from the stem's levels through its own aligners, and the heads read the stem alone).
        adapter_ratio: D divided by the adapters' inner width.
        path_norm: whether each path has a LayerNorm at each level, as published.
        aligner: None puts an aligner where a teacher's width differs from the stem's, True everywhere, False nowhere.
            Without paths, None stands for True. Or {teacher: such a value}.
        router: learned: ``mor`` (Mixture of Representations, the paper's: one set of weights for the image), ``token``
            (weights of every token) or ``token_topk`` (each token's best sources alone); or without weights: ``equal``
            (the mean of all sources) or ``sum``. Where the stem is the only source there is nothing to route.
        noisy_gating: noise on the routers' logits while training.
        heads: {task: {"type": ..., "options": {...}}}; a task that is not named gets the paper's head.
        router_temperature: by which the routers' logits are divided before the softmax.
        router_top_k: how many sources a token keeps, of ``token_topk`` alone.
        descriptions: {task: kind, names and colours of its labels}, of ``sak.bundles.tasks``: kept in the bundle alone.

    Attributes:
        activation_checkpointing: whether training computes activations of blocks, paths and heads twice instead of
            keeping them: less memory, more time, the same gradients. No part of the bundle; False at first.
        frozen: the names of the parts that do not learn in training, see `freeze`. No part of the bundle.

    Raises:
        ValueError: levels beyond the stem's depth, an image size that the patch does not divide, an unknown path,
            router, head or stem, or a teacher that has not one width per level.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        stem: str,
        image_size: Sequence[int],
        tasks: Mapping[str, int] | Sequence[tuple[str, int]],
        teachers: Mapping[str, Sequence[int]] | Sequence[tuple[str, Sequence[int]]],
        levels: Sequence[int] = (2, 5, 8, 11),
        stem_options: dict | None = None,
        paths: str = "adapter",
        adapter_ratio: int = 4,
        path_norm: bool = True,
        aligner: bool | Mapping[str, bool | None] | None = None,
        router: str = "mor",
        noisy_gating: bool = True,
        heads: Mapping[str, dict] | None = None,
        router_temperature: float = 1.0,
        router_top_k: int = 2,
        descriptions: Mapping[str, dict] | None = None,
    ):
        super().__init__()
        tasks, teachers = dict(tasks), dict(teachers)
        # config.json sorts the keys of its objects, but routers rely on the teachers' order: lists of pairs keep it.
        self._hub_mixin_config["tasks"] = list(tasks.items())
        self._hub_mixin_config["teachers"] = [(name, list(dims)) for name, dims in teachers.items()]
        for what, chosen, known in (("router", router, ROUTERS), ("paths", paths, PATHS)):
            if chosen not in known:
                raise ValueError(f"unknown {what} {chosen!r}; known: {', '.join(known)}")
        draws = Draws()
        with draws.of("stem"):
            self.stem = Stem(stem, tuple(image_size), stem_options)
        self.levels = tuple(levels)
        beyond = [level for level in self.levels if not 0 <= level < self.stem.depth]
        if beyond or not self.levels or list(self.levels) != sorted(set(self.levels)):
            raise ValueError(
                f"levels {list(self.levels)} must be increasing block indices of the stem, "
                f"which has {self.stem.depth} blocks (0 to {self.stem.depth - 1})"
            )
        width = self.stem.width
        for teacher, dims in teachers.items():
            if len(dims) != len(self.levels):
                raise ValueError(
                    f"teacher {teacher!r} has {len(dims)} levels and the student {len(self.levels)}: "
                    "both need as many levels"
                )

        def path(teacher: str, dims: Sequence[int]) -> TeacherPath:
            aligned = aligner[teacher] if isinstance(aligner, Mapping) else aligner
            with draws.of(f"paths.{teacher}"):
                if paths == "none":
                    return StemPath(width, self.levels, dims, aligned)
                return AdapterPath(width, self.stem.depth, self.levels, dims, adapter_ratio, aligned, path_norm)

        self.paths = nn.ModuleDict({teacher: path(teacher, dims) for teacher, dims in teachers.items()})
        # What the routers mix, in the order of their weights.
        self.sources: tuple[str, ...] = ("stem", *(teachers if paths == "adapter" else ()))
        self.routers = nn.ModuleDict()  # the learned ones
        self._mix = FIXED.get(router, plain_sum)  # where there is none
        if router in LEARNED and len(self.sources) > 1:
            gate = (width, len(self.sources), noisy_gating, router_temperature, router_top_k)
            for task in tasks:
                with draws.of(f"routers.{task}"):
                    self.routers[task] = nn.ModuleList(build_router(router, *gate) for _ in self.levels)
        self.heads = nn.ModuleDict()
        for task, channels in tasks.items():
            head = (heads or {}).get(task) or {"type": "sak"}
            with draws.of(f"heads.{task}"):
                self.heads[task] = build_head(head["type"], width, len(self.levels), channels, head.get("options"))
        self.activation_checkpointing, self.warned = False, False  # warned: of images that are not in [0, 1]
        self.frozen: tuple[str, ...] = ()
        self.register_buffer("mean", torch.tensor(IMAGENET_DEFAULT_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_DEFAULT_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor, tasks: Sequence[str] | None = None, without: Sequence[str] = ()) -> StudentOutput:
        """RGB images (B,3,H,W) in [0,1] -> StudentOutput.

        Args:
            tasks: those to predict: None for all of them, () for none, as the distillation stage needs.
            without: sources to knock out of every task's mixture. Their router weights are 0 and the others are
                renormalised to sum to 1; without routers they are left out of the sum. The stem still feeds the paths
                and the routers when it is knocked out, and ``paths`` of the output are what they were.

        Raises:
            ValueError: ``without`` names an unknown source, or all of them.
        """
        self.knocked_out(without)  # a wrong name is told before the work
        return self.decode(self.encode(images), tasks, without)

    def encode(self, images: Tensor) -> Encoding:
        """The first half of `forward`: stem and paths, which no task and no knocked-out source changes."""
        tokens = self._tokens(images)
        features = {teacher: self._run(path, tokens, of=path) for teacher, path in self.paths.items()}
        sources = [
            [tokens[block + 1][:, 1:], *(features[teacher][level] for teacher in self.sources[1:])]
            for level, block in enumerate(self.levels)
        ]
        return Encoding((images.shape[-2], images.shape[-1]), features, sources)

    def _tokens(self, images: Tensor) -> list[Tensor]:
        """Of the stem, after every block."""
        if not self.warned and not self.training:
            self.warned = warned_of_range(images)
        return self.stem((images - self.mean) / self.std, self.activation_checkpointing)

    def features(self, images: Tensor, source: str = "stem") -> list[Tensor]:
        """What the student sees, for other uses: RGB images (B,3,H,W) in [0,1] -> [per level (B, D, h, w)].

        Args:
            source: ``stem``; a teacher, for its path, before the aligners; or a task, for its routers' mixture.

        Raises:
            ValueError: there is no such source.
        """
        if source != "stem" and source not in self.paths and source not in self.heads:
            known = ", ".join(("stem", *self.paths, *self.heads))
            raise ValueError(f"unknown source {source!r} of features; known: {known}")
        if source in self.heads:
            return self._mixed(source, self.encode(images).sources, self.stem.grid(*images.shape[-2:]), ())[0]
        tokens = self._tokens(images)
        maps = [tokens[block + 1][:, 1:] for block in self.levels] if source == "stem" else self.path(source)(tokens)
        return [_as_map(level, self.stem.grid(*images.shape[-2:])) for level in maps]

    def decode(
        self, encoding: Encoding, tasks: Sequence[str] | None = None, without: Sequence[str] = ()
    ) -> StudentOutput:
        """The second half of `forward`: routers and heads, on one encoding as often as one likes."""
        knocked_out = self.knocked_out(without)
        size, sources, features = encoding.image_size, encoding.sources, encoding.features
        grid = self.stem.grid(*size)
        predictions, routing, token_routing = {}, {}, {}
        for task in self.heads if tasks is None else tasks:
            predictions[task], weights = self._run(self._decode, task, sources, size, knocked_out, of=self.heads[task])
            if weights and weights[0].dim() == 3:
                token_routing[task] = [_as_map(of_tokens, grid) for of_tokens in weights]
                weights = [of_tokens.mean(dim=1) for of_tokens in weights]
            if weights:
                routing[task] = weights
        paths = {name: [_as_map(aligned, grid) for aligned in self.path(name).align(f)] for name, f in features.items()}
        return StudentOutput(predictions, paths, routing, token_routing)

    def _decode(
        self, task: str, sources: Sequence[Sequence[Tensor]], image_size: tuple[int, int], knocked_out: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """Per level the S sources (B, N, D) -> the task's prediction (B, C, H, W), and its weights if routed."""
        mixed, weights = self._mixed(task, sources, self.stem.grid(*image_size), knocked_out)
        return self.heads[task](mixed, image_size), weights

    def _mixed(
        self, task: str, sources: Sequence[Sequence[Tensor]], grid: tuple[int, int], knocked_out: Sequence[int]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Per level the task's mixture (B, D, h, w), and its weights if routed."""
        mixed, weights = [], []
        for level, (x, *paths) in enumerate(sources):
            mix = cast(nn.ModuleList, self.routers[task])[level] if task in self.routers else self._mix
            x, routed = mix(x, paths, knocked_out)
            if routed is not None:
                weights.append(routed)
            mixed.append(_as_map(x, grid))
        return mixed, weights

    def knocked_out(self, without: Sequence[str]) -> tuple[int, ...]:
        """The indices of these sources; ValueError where one is unknown, or all are named."""
        unknown = [source for source in without if source not in self.sources]
        if unknown:
            raise ValueError(f"unknown source {unknown[0]!r} to leave out; known: {', '.join(self.sources)}")
        if set(without) == set(self.sources):
            raise ValueError(f"all sources ({', '.join(self.sources)}) are left out: one has to stay")
        return tuple(index for index, source in enumerate(self.sources) if source in without)

    def path(self, teacher: str) -> TeacherPath:
        """The part of the student that belongs to one teacher."""
        return cast(TeacherPath, self.paths[teacher])

    def _run(self, function: Callable, *arguments, of: nn.Module):
        return recomputed(function, *arguments, of=of) if self.activation_checkpointing else function(*arguments)

    def set_image_size(self, image_size: Sequence[int]) -> None:
        """Train on images of another size (H, W) from here on: resizes the stem's position embedding for good."""
        self.stem.set_image_size(tuple(image_size))
        self._hub_mixin_config["image_size"] = list(image_size)

    def freeze(self, parts: Sequence[str]) -> None:
        """Freeze these parts, as ``stem`` or ``paths.sam``: no gradients, and eval mode whatever the others are in.

        Batch norms then keep their statistics, and gates draw no noise.
        """
        self.frozen = tuple(parts)
        for part in self.frozen:
            self.get_submodule(part).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Student":
        super().train(mode)
        for part in self.frozen:
            self.get_submodule(part).eval()
        return self

    @property
    def settings(self) -> dict:
        """The arguments that it was built with, and would be built with again; teachers as pairs, in their order."""
        return dict(self._hub_mixin_config)

    @property
    def aligners(self) -> dict[str, bool | None]:
        """{teacher: the ``aligner`` of its path}."""
        given = self._hub_mixin_config["aligner"]
        return {teacher: given[teacher] if isinstance(given, Mapping) else given for teacher in self.paths}

    @property
    def channels(self) -> dict[str, int]:
        """{task: output channels}."""
        return dict(self._hub_mixin_config["tasks"])

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of training."""
        return tuple(self._hub_mixin_config["image_size"])

    def drop_aligners(self) -> None:
        """Remove what only the distillation loss needs; ``StudentOutput.paths`` then has the stem's width."""
        for path in self.paths.values():
            path.aligners = nn.ModuleList(nn.Identity() for _ in self.levels)
        self._hub_mixin_config["aligner"] = False


def _as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, h·w, D) -> (B, D, h, w)."""
    return tokens.transpose(1, 2).unflatten(2, grid)

"""A backbone with heads: what a student is compared with, in a student's form, so that all else treats it as one.

Shapes: B batch, N tokens, D width, K tasks, H,W image, h,w token grid.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

import teachers
from sak.adaptation.frozen import BackboneStem, Frozen
from sak.adaptation.losa import LoSA
from sak.adaptation.tuned import Tuned
from sak.config.schema import METHODS
from sak.student import BundleError, Student
from sak.student.draws import Draws
from sak.student.head import build_head
from sak.student.interface import Encoding, StudentOutput, warned_of_range
from sak.student.router import plain_sum
from teachers import MultiScale, Teacher
from teachers.base import RANDOM
from teachers.fingerprints import weights_hash

BACKBONE = "stem.backbone."  # what the names of its weights begin with


class Adapted(Student):
    """A pre-trained backbone, adapted by one method, under the student's heads.

    It has no paths and no routers: `predictions` are all that its output holds. The backbone itself is no part of what
    a checkpoint or a bundle keeps, but for the weights of it that learn: both keep the side network, or the matrices of
    LoRA, and the heads. A bundle names the backbone by its spec and the SHA-256 of its weights, and is refused with
    any other.

    Args:
        backbone: {"name": ..., "spec": fields of a ``TeacherSpec``, "sha256": of its weights, None where they are not
            known yet}.
        method: ``linear`` (heads alone), ``losa``, ``lora``, ``adapter``, ``bitfit`` or ``full``.
        image_size: (H, W) of training; other sizes work too.
        tasks: {task: output channels}, or such pairs.
        rank: of losa's and lora's maps, and the inner width of adapters.
        levels: of losa, those of the backbone's levels that the heads read; None: all.
        heads, descriptions: as of ``Student``.

    Attributes:
        method: as given.
        origin: SHA-256 of the backbone's weights as it was built, "" on `meta`.

    Raises:
        UserError: the backbone cannot be had, or the method does not go with it.
        BundleError: it has other weights than those that are named.
        ValueError: an unknown method or head.
    """

    stem: BackboneStem  # type: ignore[assignment]

    def __init__(
        self,
        backbone: Mapping,
        method: str,
        image_size: Sequence[int],
        tasks: Mapping[str, int] | Sequence[tuple[str, int]],
        rank: int = 8,
        levels: Sequence[int] | None = None,
        heads: Mapping[str, dict] | None = None,
        descriptions: Mapping[str, dict] | None = None,
    ):
        nn.Module.__init__(self)
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
        tasks, draws = dict(tasks), Draws()
        teacher = teachers.build(backbone["name"], backbone["spec"])
        # As in a student: lists of pairs keep their order in config.json.
        self._hub_mixin_config["tasks"] = list(tasks.items())
        self._hub_mixin_config["backbone"], self.origin = _identified(teacher, backbone, method)
        with draws.of("stem"):
            if method == "linear":
                self.stem = Frozen(teacher)
            elif method == "losa":
                self.stem = LoSA(teacher, rank, levels=levels, grid=teacher.grid(*image_size))
            else:
                self.stem = Tuned(teacher, method, rank, image_size)
        self.method, self.levels = method, tuple(self.stem.levels)
        self.paths, self.routers, self.heads = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self.sources = ("stem",)
        self._mix = plain_sum
        for task, channels in tasks.items():
            head = (heads or {}).get(task) or {"type": "sak"}
            with draws.of(f"heads.{task}"):
                width = self.stem.width
                self.heads[task] = build_head(head["type"], width, len(self.levels), channels, head.get("options"))
        self.activation_checkpointing, self.warned = False, False
        self.frozen: tuple[str, ...] = ()
        learned = {f"{BACKBONE}{name}" for name in self.stem.learned}
        names = nn.Module.state_dict(self)
        self._left_out = {n for n in names if method != "full" and n.startswith(BACKBONE) and n not in learned}

    def forward(
        self,
        images: Tensor,
        tasks: Sequence[str] | None = None,
        without: Sequence[str] = (),
        maps: Sequence[Tensor] | None = None,
    ) -> StudentOutput:
        """As ``Student.forward``.

        Args:
            maps: what a frozen backbone makes of the images at its taps, where it is known.
        """
        self.knocked_out(without)
        return self.decode(self.encode(images, maps), tasks, without)

    def encode(self, images: Tensor, maps: Sequence[Tensor] | None = None) -> Encoding:
        levels = self._levels(images, maps)
        return Encoding((images.shape[-2], images.shape[-1]), {}, [[level.flatten(2).mT] for level in levels])

    def features(self, images: Tensor, source: str = "stem") -> list[Tensor]:
        """The adapted backbone's maps: RGB images (B,3,H,W) in [0,1] -> [per level (B, D, h, w)].

        Args:
            source: ``stem``, or a task, whose head reads the same.

        Raises:
            ValueError: there is no such source.
        """
        if source != "stem" and source not in self.heads:
            raise ValueError(f"unknown source {source!r} of features; known: {', '.join(('stem', *self.heads))}")
        return self._levels(images)

    def _levels(self, images: Tensor, maps: Sequence[Tensor] | None = None) -> list[Tensor]:
        if not self.warned and not self.training:
            self.warned = warned_of_range(images)
        return self.stem(images) if maps is None else self.stem(images, maps)

    @property
    def backbone(self) -> Teacher | MultiScale:
        return cast(Teacher | MultiScale, self.stem.backbone)

    def set_image_size(self, image_size: Sequence[int]) -> None:
        """Nothing in it has a size: weights of the token mixing are resized on the fly."""
        self._hub_mixin_config["image_size"] = list(image_size)

    def drop_aligners(self) -> None:
        """There are none."""

    def state_dict(self, *args: Any, prefix: str = "", **options: Any) -> dict[str, Any]:  # type: ignore[override]
        """All but the weights of the backbone that do not learn."""
        state = super().state_dict(*args, prefix=prefix, **options)
        for name in self._left_out:
            state.pop(f"{prefix}{name}", None)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """The inverse of `state_dict`; what that leaves out is refused."""
        if strangers := sorted(self._left_out & state_dict.keys()):
            raise RuntimeError(f"of another student:\n\tit holds {strangers[0]}, which belongs to the frozen backbone")
        whole = nn.Module.state_dict(self)
        kept = {name: whole[name] for name in self._left_out}
        return super().load_state_dict({**kept, **state_dict}, strict, assign)

    @classmethod
    def _from_pretrained(cls, *, config: Any = None, **arguments: Any):  # type: ignore[override]
        named = config.get("backbone") if isinstance(config, dict) else None
        if isinstance(named, dict) and not named.get("sha256") and config.get("method") != "full":
            raise BundleError("is no bundle of this sak: it does not say which weights its backbone must have")
        return super()._from_pretrained(config=config, **arguments)


def _identified(teacher: Teacher | MultiScale, reference: Mapping, method: str) -> tuple[dict, str]:
    """What a bundle says of its backbone, and the SHA-256 of its weights.

    A backbone that is trained as a whole is in the bundle, which then names no other weights.

    Raises:
        BundleError: the weights are not those that are asked for.
    """
    spec, wanted = dict(reference["spec"]), reference.get("sha256")
    # On `meta`, where a plan is made, there are no weights.
    found = "" if next(teacher.parameters()).is_meta else weights_hash(teacher)
    if method == "full":
        return {"name": teacher.name, "spec": {**spec, "weights": RANDOM}, "sha256": None}, found
    if wanted not in (None, found):
        raise BundleError(
            f"was trained on a backbone {teacher.name} whose weights have the SHA-256 {wanted[:16]}, but those found "
            f"({teacher.report or 'untrained'}) have {found[:16]}: put the right ones in their place, or name it as "
            "backbone.spec.weights in its config.json"
        )
    return {"name": teacher.name, "spec": spec, "sha256": found}, found

"""The baselines that reach into a backbone: LoRA, adapters, BitFit, and fine-tuning all of it.

Shapes: B batch, D width, H,W image, h,w token grid, r rank.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sak.adaptation.frozen import BackboneStem
from sak.errors import UserError
from teachers import MultiScale, Teacher

QUERIES = ("qkv",)  # the layer of the attention that LoRA changes ...
FIRST_OF_MLP = ("fc1", "c_fc", "lin1")  # ... and this one where a family computes its attention without calling it


class Bottleneck(nn.Module):
    """z + W_up GELU(W_down z), which begins as z."""

    def __init__(self, width: int, rank: int):
        super().__init__()
        self.down, self.up = nn.Linear(width, rank), nn.Linear(rank, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, z: Tensor) -> Tensor:
        return z + self.up(F.gelu(self.down(z)))


class Tuned(BackboneStem):
    """A teacher's backbone that learns: its maps with a gradient, images in [0, 1], any size.

    lora: W + B A with rank r beside the queries, keys and values of every block (Hu et al., arXiv 2106.09685), by peft;
        beside the first layer of its MLPs for SAM and open_clip's own transformers.
    adapter: z + W_up GELU(W_down z), r wide, behind the MLP of every block (Houlsby et al., arXiv 1902.00751).
    bitfit: all biases alone (Ben Zaken et al., arXiv 2106.10199).
    full: all weights.

    LoRA and adapters begin with W_up = 0, so that all four start with exactly the backbone's features. What no level
    depends on, as blocks above the last one, does not learn.

    Args:
        teacher: is changed in place.
        method: one of the four.
        size: (H, W) of an image, with which is seen what the levels depend on.

    Raises:
        UserError: the teacher is one at several scales, in half precision or of several widths, peft is missing, or
            the method finds nothing to change in it.
    """

    def __init__(self, teacher: Teacher | MultiScale, method: str, rank: int, size: Sequence[int]):
        super().__init__()
        if isinstance(teacher, MultiScale):
            raise UserError(
                f"{method} goes through a backbone at one scale, but {teacher.name} has the scales {teacher.scales}: "
                "set scales to [1], or the method to linear or losa"
            )
        if teacher.dtype != torch.float32:
            raise UserError(f"{method} trains weights, which must be float32: set dtype of {teacher.name} so")
        if len(set(teacher.dims)) > 1 or len(set(teacher.strides)) > 1:
            raise UserError(f"teacher {teacher.name}: its levels have several widths or grids, but one is needed here")
        if not 1 <= rank <= teacher.dims[0]:
            raise UserError(
                f"rank is {rank}, but must be from 1 to {teacher.dims[0]}, the width of the backbone's maps"
            )
        self.backbone = teacher
        self.taps = self.levels = list(teacher.levels)
        self.width, self.patch_size = teacher.dims[0], teacher.patch_size
        images = torch.zeros(1, 3, *size, device=teacher.mean.device)
        if method == "lora":
            _add_lora(teacher, _called(self, images), rank)
        elif method == "adapter":
            _add_adapters(teacher, _called(self, images), rank)
        else:
            for name, weight in teacher.named_parameters():
                weight.requires_grad_(method == "full" or name.endswith("bias"))
            for weight in _without_gradient(self, images):
                weight.requires_grad_(False)
        self.learned = [name for name, weight in teacher.named_parameters() if weight.requires_grad]
        if not self.learned:
            raise UserError(f"{method} finds nothing to train in the backbone {teacher.name}: choose another method")

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return cast(Teacher, self.backbone).grid(height, width)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B,3,H,W) -> a float32 map (B,D,h,w) of each level, as `Teacher.forward`, but with a gradient."""
        teacher = cast(Teacher, self.backbone)
        return [level.float() for level in teacher.features(teacher.normalise(images))]


def _called(tuned: Tuned, images: Tensor) -> dict[str, nn.Module]:
    """{name in the teacher: module} of all that its features go through by a call, in the order of their names."""
    called: set[nn.Module] = set()
    named = dict(tuned.backbone.named_modules())
    hooks = [module.register_forward_hook(lambda module, *_: called.add(module)) for module in named.values()]
    with torch.no_grad():
        tuned(images)
    for hook in hooks:
        hook.remove()
    return {name: module for name, module in named.items() if module in called}


def _without_gradient(tuned: Tuned, images: Tensor) -> Iterable[nn.Parameter]:
    """Those that no level depends on."""
    weights = [weight for weight in tuned.parameters() if weight.requires_grad]
    with torch.enable_grad():
        total = sum(level.sum() for level in tuned(images))
    found = torch.autograd.grad(cast(Tensor, total), weights, allow_unused=True)
    return [weight for weight, gradient in zip(weights, found, strict=True) if gradient is None]


def _named(modules: Mapping[str, nn.Module], last: Sequence[str]) -> list[str]:
    return [name for name in modules if name.rpartition(".")[2] in last]


def _add_lora(teacher: Teacher, called: dict[str, nn.Module], rank: int) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError("lora needs the library peft: pip install 'sak[adapt]', or choose another method") from None
    linear = {name: module for name, module in called.items() if isinstance(module, nn.Linear)}
    if not (targets := _named(linear, QUERIES) or _named(linear, FIRST_OF_MLP)):
        raise UserError(f"lora finds no layer of the names {', '.join(QUERIES + FIRST_OF_MLP)} in {teacher.name}")
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), teacher)
    teacher.eval()


def _add_adapters(teacher: Teacher, called: dict[str, nn.Module], rank: int) -> None:
    if not (places := _named(called, ("mlp",))):
        raise UserError(f"adapter finds no block with an MLP in {teacher.name}")
    for name in places:
        teacher.set_submodule(name, nn.Sequential(called[name], Bottleneck(teacher.dims[0], rank)))
    teacher.eval()

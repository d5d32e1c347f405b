"""What the full-size teachers cost for one image, and SAM's encoder against segment_anything's own and timm's.

Every row is measured in a process of its own, for its peak memory: `python -m benchmarks.teachers ROW` in `tools`,
whose own name is not to hide the package `teachers`. The weights are random; cost does not depend on them.
"""

import json
import sys
import time
from collections.abc import Callable

import timm
import torch
from timm.models.vision_transformer_sam import checkpoint_filter_fn
from torch import nn

import teachers
from benchmarks.apart import fresh
from benchmarks.timing import table
from teachers.sam import image_encoder, run_block

IMAGE = 512  # pixels a side, as the multi-task stage of the paper's recipe has them
ROUNDS = 2
TEACHERS = {  # row: family, model, its levels
    "DINOv2 S/14": ("dinov2", "vit_small_patch14_dinov2", [2, 5, 8, 11]),
    "DINOv2 B/14": ("dinov2", "vit_base_patch14_dinov2", [2, 5, 8, 11]),
    "DINOv2 L/14": ("dinov2", "vit_large_patch14_dinov2", [5, 11, 17, 23]),
    "DINOv2 g/14": ("dinov2", "vit_giant_patch14_dinov2", [9, 19, 29, 39]),
    "CLIP B/16": ("clip", "ViT-B-16", [2, 5, 8, 11]),
    "CLIP L/14": ("clip", "ViT-L-14", [5, 11, 17, 23]),
    "SAM B/16": ("sam", "vit_b", [2, 5, 8, 11]),
    "SAM L/16": ("sam", "vit_l", [5, 11, 17, 23]),
    "SAM H/16": ("sam", "vit_h", [7, 15, 23, 31]),
}
TIMM = {"vit_b": "samvit_base_patch16"}
ENCODERS = {"SAM B at 512": ("vit_b", 512), "SAM B at 1024": ("vit_b", 1024)}


def run() -> str:
    costs, comparison = [], []
    for row, (family, model, _) in TEACHERS.items():
        cost = fresh("benchmarks.teachers", row)
        sees = " x ".join(str(side) for side in cost["sees"])
        cells = row, f"`{family}`: `{model}`", sees, f"{cost['weights']:.0f}", f"{cost['peak']:.0f}"
        costs.append((*cells, f"{cost['seconds']:.2f}"))
    for row in ENCODERS:
        ours, library, times = (fresh("benchmarks.teachers", row, way) for way in ("ours", "library", "times"))
        cells = row, *(f"{times[way]:.2f}" for way in ("ours", "library", "timm"))
        cells = *cells, *(f"{times[way] / times['ours']:.2f}" for way in ("library", "timm"))
        peaks = f"{ours['peak']:.0f}", f"{library['peak']:.0f}", f"{library['peak'] / ours['peak']:.1f}"
        comparison.append((*cells, *peaks))
    first = table(("teacher", "spec", "sees", "weights, MiB", "peak beyond them, MiB", "processor s"), costs)
    names = ("ours", "segment_anything's", "timm's")
    ratios = ("segment_anything's / ours", "timm's / ours")
    peaks = ("ours, peak MiB", "segment_anything's peak MiB", "ratio")
    header = ("blocks of", *(f"{name}, processor s" for name in names), *ratios, *peaks)
    second = table(header, comparison)
    return (
        f"One image of {IMAGE} x {IMAGE}, float32, {torch.get_num_threads()} threads, fastest of {ROUNDS} rounds; "
        f"memory of a fresh process.\n\n{first}\n\nThe same blocks with the same weights (features differ by less than "
        f"1e-4), both in turn, fastest of {ROUNDS} rounds; peaks beyond the weights, in fresh processes.\n\n{second}"
    )


def resident(entry: str = "VmRSS") -> float:
    """MiB of this process; `VmHWM`: at its largest."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(entry)) / 1024


def peak_beyond(before: float) -> float:
    """MiB of this process at its largest, beyond what it held before."""
    return resident("VmHWM") - before  # getrusage's would begin with what the parent held


def processor_seconds(function: Callable[[], object]) -> float:
    """Of this process alone, whatever else the machine does: exact with one thread, as waiting threads count too."""
    start = time.process_time()
    function()
    return time.process_time() - start


def weights_of(module: nn.Module) -> float:
    return sum(tensor.nbytes for tensor in module.parameters()) / 2**20


def teacher_cost(row: str) -> dict:
    family, model, levels = TEACHERS[row]
    teacher = teachers.build(row, {"family": family, "model": model, "weights": "random", "levels": levels})
    image = torch.rand(1, 3, IMAGE, IMAGE)
    before = resident()
    fastest = min(processor_seconds(lambda: teacher(image)) for _ in range(ROUNDS))
    sees = teacher.resized(IMAGE, IMAGE)
    return {"sees": sees, "weights": weights_of(teacher), "peak": peak_beyond(before), "seconds": fastest}


@torch.no_grad()
def encoder_cost(row: str, way: str) -> dict:
    model, size = ENCODERS[row]
    torch.manual_seed(0)
    encoder = image_encoder(model, img_size=size).eval()
    for name, parameter in encoder.named_parameters():
        if "rel_pos" in name:
            nn.init.normal_(parameter, std=0.02)  # the library starts them at 0
    tokens = encoder.patch_embed(torch.randn(1, 3, size, size)) + nn.init.normal_(encoder.pos_embed, std=0.02)

    def through(block: Callable) -> torch.Tensor:
        passed = tokens
        for index in range(len(encoder.blocks)):
            passed = block(encoder.blocks[index], passed)
        return passed

    ways = {"ours": lambda: through(run_block), "library": lambda: through(lambda block, passed: block(passed))}
    before = resident()
    if way in ways:
        ways[way]()
        return {"peak": peak_beyond(before)}
    others = timm.create_model(TIMM[model], img_size=size).eval()
    named = {f"image_encoder.{name}": value for name, value in encoder.state_dict().items()}
    others.load_state_dict(checkpoint_filter_fn(named, others))
    ways["timm"] = lambda: others.blocks(tokens)
    expected = ways["library"]()
    for name in ("ours", "timm"):
        torch.testing.assert_close(ways[name](), expected, rtol=1e-4, atol=1e-4)
    rounds = [[processor_seconds(function) for function in ways.values()] for _ in range(ROUNDS)]
    return dict(zip(ways, map(min, zip(*rounds, strict=True)), strict=True))


if __name__ == "__main__":
    measured = encoder_cost(*sys.argv[1:]) if sys.argv[1] in ENCODERS else teacher_cost(sys.argv[1])
    print(json.dumps(measured))

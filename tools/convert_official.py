"""Turn a checkpoint of the published SAK code, of either stage, into a bundle that Student.from_pretrained reads."""

from pathlib import Path

from sak.cli import run, tool_parser, whole
from sak.limits import MOST_PIXELS

EXAMPLE = """example:
  python tools/convert_official.py sak_pascal_vitb.pth students/sak_pascal_vitb
  python tools/convert_official.py stage1.pth students/stage1 --image-size 384 384
  python tools/convert_official.py sak_nyud_vitb.pth students/sak_nyud_vitb --dataset nyud --drop-aligners"""


def main(arguments: list[str]) -> None:
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument("checkpoint", help=".pth or .safetensors")
    parser.add_argument("output", type=Path, help="the bundle's directory, which must not exist yet")
    parser.add_argument("--dataset", metavar="NAME", help="refuse the checkpoint if its heads are not this data set's")
    parser.add_argument(
        "--image-size",
        nargs=2,
        type=whole(1, MOST_PIXELS),
        metavar=("H", "W"),
        help="default: the published one with as many tokens",
    )
    parser.add_argument(
        "--num-heads", type=whole(1), metavar="N", help="attention heads of the stem; default: width/64"
    )
    parser.add_argument("--drop-aligners", action="store_true", help="leave out what only distillation needs")
    options = parser.parse_args(arguments)

    from sak.bundles.convert import convert_official  # after the command line's own mistakes: it loads torch

    student = convert_official(
        options.checkpoint,
        options.output,
        options.dataset,
        options.image_size,
        options.num_heads,
        keep_aligners=not options.drop_aligners,
    )
    tasks = ", ".join(f"{task} ({count})" for task, count in student.channels.items()) or "none: distilled only"
    size = "x".join(map(str, student.image_size))
    print(f"{options.output}: {size}, sources {', '.join(student.sources)}, tasks {tasks}")


if __name__ == "__main__":
    run(main)

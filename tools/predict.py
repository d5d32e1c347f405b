"""Predict with a trained student: for pictures of any size, folders of them, and videos."""

import sys
from pathlib import Path

from sak.cli import run, tool_parser, whole
from sak.files import about
from sak.limits import MOST_PIXELS

EXAMPLE = """example:
  python tools/predict.py runs/sak_pascal_mini photos/ --out predictions
  python tools/predict.py student/ 'holiday/*.jpg' film.mp4 --out predictions --tasks semseg edge --every 25
  python tools/predict.py user/student photo.jpg --out without_clip --without clip --longest-edge 512

OUT gets <task>/NAME.png in the field's formats and panels/NAME.png; the same command goes on where it was stopped. A
picture larger than those of training is seen through overlapping windows of their size, unless --longest-edge or
--whole say otherwise. If some pictures could not be read, they are listed at the end, and the exit code is 1. See
docs/deployment.md."""


def main(arguments: list[str]) -> None:
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument("bundle", help="a bundle or its hub id, a finished run, or a published SAK checkpoint")
    parser.add_argument("pictures", nargs="+", help="pictures, videos, folders of them, or patterns in quotes")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder for the results")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="default: all that the student has")
    parser.add_argument("--without", nargs="+", default=[], metavar="SOURCE", help="sources to knock out")
    parser.add_argument("--npz", action="store_true", help="also write the numbers, as arrays/NAME.npz")
    parser.add_argument("--no-panels", action="store_true", help="write no panels, which take the most time")
    parser.add_argument(
        "--longest-edge", type=whole(1, MOST_PIXELS), metavar="N", help="shrink larger pictures to N pixels first"
    )
    parser.add_argument("--whole", action="store_true", help="no windows: each picture in one pass")
    parser.add_argument("--every", type=whole(1), default=1, metavar="N", help="of a video, every N-th frame")
    parser.add_argument("--batch-size", type=whole(1), default=8, metavar="N", help="windows of a pass; default: 8")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: a GPU if there is one")
    parser.add_argument(
        "--precision", default="fp32", metavar="fp32|bf16|auto", help="auto: bf16 where this machine is faster in it"
    )
    options = parser.parse_intermixed_args(arguments)

    from sak.deploy.predict import predict  # after the command line's own mistakes: these load torch
    from sak.deploy.predictor import Predictor

    how = (options.device, options.tasks, options.without, options.longest_edge, options.whole, options.batch_size)
    predictor = Predictor(options.bundle, *how, options.precision)
    with about(options.out):
        written, faults = predict(
            predictor, options.pictures, options.out, not options.no_panels, options.npz, options.every
        )
    print(f"{written:,} predicted, in {options.out}")
    if faults:
        print(f"{len(faults):,} could not be read:", *faults, sep="\n  ", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run(main)

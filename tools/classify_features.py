"""Evaluate a student's frozen features on a folder of classes: k nearest neighbours and a linear probe of each source.

Nothing of the student is trained. FOLDER holds train/CLASS/*.jpg to learn from and val/CLASS/*.jpg to evaluate."""

from pathlib import Path

from sak import config
from sak.cli import run, tool_parser, whole
from sak.files import about
from sak.limits import MOST_PIXELS, MOST_PROCESSES

EXAMPLE = """example:
  python tools/classify_features.py runs/distill_folder data/flowers
  python tools/classify_features.py runs/sak_pascal_mini data/flowers --config configs/sak_pascal_mini.yaml

With --config its teachers are evaluated beside the student. The same command again goes on where it was stopped. OUTPUT
gets classification.md and classification.json."""


def main(arguments: list[str]) -> None:
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument("student", help="a finished run or a bundle, with heads or without")
    parser.add_argument("folder", type=Path, help="with train/ and val/, each a folder of classes")
    parser.add_argument("--config", metavar="CONFIG", help="whose teachers are evaluated too")
    parser.add_argument(
        "--image-size", nargs=2, type=whole(1, MOST_PIXELS), metavar=("H", "W"), help="default: that of training"
    )
    parser.add_argument("--batch-size", type=whole(1), default=32, metavar="N", help="images at once (default: 32)")
    parser.add_argument("--workers", type=whole(0, MOST_PROCESSES), default=2, metavar="N", help="default: 2")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: RUN/classification, classification/BUNDLE")
    options = parser.parse_args(arguments)
    experiment = config.load(options.config) if options.config else None

    from sak.evaluation.subject import default_output  # after the command line's own mistakes: it loads torch
    from sak.research.classification.evaluate import classify

    output = options.output or default_output(options.student, "classification")
    size = tuple(options.image_size) if options.image_size else None
    with about(output):
        how = (experiment, size, options.batch_size, options.workers)
        print(f"Finished: {classify(options.student, options.folder, output, *how)}")


if __name__ == "__main__":
    run(main)

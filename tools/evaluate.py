"""Evaluate a trained student on PASCAL-Context or NYUD-v2: every metric, and its gain over single-task baselines.

A run of a vision vocabulary is evaluated on its own samples, and asked again with the wrong images.
"""

import argparse
import contextlib
from pathlib import Path

from sak.cli import run, tool_parser, whole
from sak.errors import UserError
from sak.files import about
from sak.limits import MOST_PIXELS, MOST_PROCESSES

EXAMPLE = """example:
  python tools/evaluate.py runs/sak_pascal_mini
  python tools/evaluate.py student/ --data /data/PASCALContext --baseline single_task_pascal_vitb --save-maps
  torchrun --nproc_per_node 4 tools/evaluate.py checkpoint.pth --data /data/NYUDv2 --output results/nyud
  python tools/evaluate.py runs/vary_mini --tesseract

The results are written to OUTPUT/metrics.json and OUTPUT/results.md, with --save-maps the predictions to
OUTPUT/<task>/. See docs/evaluation.md."""


def main(arguments: list[str]) -> None:
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument("subject", help="a run directory, a bundle or its hub id, or a published SAK checkpoint")
    parser.add_argument("--data", metavar="ROOT", help="the data set's folder; default: that of the run")
    parser.add_argument("--dataset", metavar="NAME", help="default: that of the run, or that of the student's tasks")
    parser.add_argument("--split", default="val", choices=["train", "val"])
    parser.add_argument(
        "--image-size", nargs=2, type=whole(1, MOST_PIXELS), metavar=("H", "W"), help="default: that of training"
    )
    parser.add_argument(
        "--num-heads", type=whole(1), metavar="N", help="attention heads of a checkpoint; default: width/64"
    )
    parser.add_argument(
        "--baseline",
        action="append",
        metavar="NAME|FILE|RUN",
        help="single-task figures for Δm; repeat it where each holds some of the tasks",
    )
    parser.add_argument("--boundaries", default="sak", choices=["sak", "invpt"], help="protocol of edge; default: sak")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: RUN/evaluation, or evaluation/TARGET")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there already")
    parser.add_argument("--save-maps", action="store_true", help="write the predictions as files")
    parser.add_argument("--batch-size", type=whole(1), metavar="N", help="default: that of the run, or 8")
    workers = "processes that load images, and as many that match"
    parser.add_argument("--workers", type=whole(0, MOST_PROCESSES), metavar="N", help=workers)
    parser.add_argument(
        "--threads",
        type=whole(1, MOST_PROCESSES),
        default=1,
        metavar="N",
        help="per process on CPUs; another number moves the last digits",
    )
    parser.add_argument("--tesseract", action="store_true", help="of a vocabulary: let tesseract read its pages too")
    options = parser.parse_args(arguments)

    from sak.vocabulary.reading.reader import reads

    vocabulary = False
    with contextlib.suppress(UserError):  # which the evaluation of students says better
        vocabulary = Path(options.subject).is_dir() and reads(options.subject)
    if vocabulary:
        return evaluate_reading(options)
    if options.tesseract:
        raise UserError(f"--tesseract is of a vision vocabulary, but {options.subject} is a student")

    import torch  # after the command line's own mistakes: these take a while to load

    from sak.evaluation import baselines
    from sak.evaluation.benchmark import run_benchmark
    from sak.evaluation.subject import default_output, open_subject

    torch.set_num_threads(options.threads)  # torchrun sets one, a plain start one per core: they would differ
    baseline = baselines.load(options.baseline) if options.baseline else None
    subject = open_subject(options.subject, options.dataset, options.data, options.image_size, options.num_heads)
    if options.batch_size is not None:
        subject.batch_size = options.batch_size
    if options.workers is not None:
        subject.data.workers = options.workers
    output = options.output or default_output(options.subject)
    how = (options.split, baseline, options.boundaries, options.save_maps, options.overwrite)
    with about(output):
        run_benchmark(subject, output, *how)


def evaluate_reading(options: argparse.Namespace) -> None:
    """Of a model that reads.

    Raises:
        UserError: an option is given that is of students alone.
    """
    for name in ("data", "dataset", "image_size", "num_heads", "baseline", "save_maps"):
        if getattr(options, name):
            raise UserError(f"--{name.replace('_', '-')} is of students, but {options.subject} has its own samples")
    from sak.evaluation.subject import default_output
    from sak.vocabulary.reading.benchmark import run_benchmark

    output = options.output or default_output(options.subject)
    how = (options.split, options.overwrite, options.batch_size, options.workers, options.tesseract)
    with about(output):
        run_benchmark(options.subject, output, *how)


if __name__ == "__main__":
    run(main)

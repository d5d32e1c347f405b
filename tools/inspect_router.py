"""Lay a student's routers open: what they weigh, whether they have collapsed, and what each source is worth."""

from pathlib import Path

from sak.cli import run, tool_parser, whole
from sak.files import about
from sak.limits import MOST_PROCESSES

EXAMPLE = """example:
  python tools/inspect_router.py runs/sak_pascal_mini
  python tools/inspect_router.py student/ --data /data/PASCALContext --limit 500
  python tools/inspect_router.py runs/sak_pascal_mini holiday.jpg pictures/

It looks at the validation set, or at images of your own: files, or folders of them. OUTPUT gets inspection.json, PNG
figures and TensorBoard events. See docs/routing.md."""


def main(arguments: list[str]) -> None:
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument("subject", help="a finished run, a bundle or its hub id, or a published SAK checkpoint")
    parser.add_argument("images", nargs="*", help="image files or folders of them, instead of the validation set")
    parser.add_argument("--data", metavar="ROOT", help="the data set's folder; default: that of the run")
    parser.add_argument("--dataset", metavar="NAME", help="default: that of the run, or that of the student's tasks")
    parser.add_argument("--limit", type=whole(1), metavar="N", help="look at N validation images, evenly spread")
    parser.add_argument(
        "--no-knock-out", action="store_true", help="do not evaluate the student without each source (the slow part)"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: RUN/inspection, or inspection/TARGET")
    parser.add_argument("--batch-size", type=whole(1), metavar="N", help="default: that of the run, or 8")
    workers = "processes that load images, and as many that match"
    parser.add_argument("--workers", type=whole(0, MOST_PROCESSES), metavar="N", help=workers)
    options = parser.parse_intermixed_args(arguments)

    from sak.evaluation.subject import default_output, open_subject
    from sak.research.routing.inspection import inspect  # after the command line's own mistakes: it loads torch

    subject = open_subject(options.subject, options.dataset, options.data, labelled=not options.images)
    if options.batch_size is not None:
        subject.batch_size = options.batch_size
    if options.workers is not None:
        subject.data.workers = options.workers
    kind = "inspection_of_images" if options.images else "inspection"
    output = options.output or default_output(options.subject, kind)
    with about(output):
        inspect(subject, output, options.images, options.limit, not options.no_knock_out)
    print(f"written to {output}")


if __name__ == "__main__":
    run(main)

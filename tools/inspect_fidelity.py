"""How faithful a student's paths are to their teachers: cosines per teacher and level, PCA panels side by side."""

from pathlib import Path

from sak.cli import run, tool_parser, whole
from sak.files import about

EXAMPLE = """example:
  python tools/inspect_fidelity.py runs/sak_pascal_mini
  python tools/inspect_fidelity.py student/ --config configs/sak_pascal.yaml data.root=/data/PASCALContext

It compares over the validation set, through the aligners that the paths were distilled through: those of the run's last
checkpoint, or of a bundle of the first stage. See docs/routing.md."""


def main(arguments: list[str]) -> None:
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument("subject", help="a finished run, or a bundle of the first stage")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that override the config's")
    parser.add_argument("--config", metavar="FILE", help="with the teachers and the data; default: that of the run")
    parser.add_argument("--limit", type=whole(1), metavar="N", help="look at N validation images, evenly spread")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: RUN/fidelity, or fidelity/TARGET")
    options = parser.parse_intermixed_args(arguments)

    from sak.evaluation.subject import default_output
    from sak.research.similarity.fidelity import compare_paths  # after the command line's own mistakes: it loads torch

    output = options.output or default_output(options.subject, "fidelity")
    with about(output):
        compare_paths(options.subject, output, options.config, options.overrides, options.limit)
    print(f"written to {output}")


if __name__ == "__main__":
    run(main)

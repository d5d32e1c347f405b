"""Put finished runs side by side: metrics, Δm, cost, and what their configs differ in."""

from pathlib import Path

from sak.cli import run, tool_parser

EXAMPLE = """example:
  python tools/compare_runs.py runs/sak_pascal_mini runs/sum
  python tools/compare_runs.py runs/baseline-seed* runs/tuned-seed* --baseline baseline --output comparison

Runs that differ in nothing but their seeds are one row, with a 95 % interval. OUTPUT gets comparison.md,
comparison.json and comparison.png. See docs/evaluation.md."""


def main(arguments: list[str]) -> None:
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument("runs", nargs="+", type=Path, metavar="run", help="directories of finished runs")
    parser.add_argument("--baseline", metavar="RUN", help="what Δm is measured against; default: the first")
    parser.add_argument("--output", type=Path, default=Path("comparison"), metavar="DIR", help="default: comparison")
    options = parser.parse_intermixed_args(arguments)

    from sak.files import about  # after the command line's own mistakes: what follows loads torch
    from sak.research.comparison.compare import compare

    with about(options.output):
        print(compare(options.runs, options.output, options.baseline))
    print(f"\nwritten to {options.output}")


if __name__ == "__main__":
    run(main)

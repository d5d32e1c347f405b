"""Measure the speed of parts of the library on this machine; prints Markdown tables and keeps them on a page."""

import importlib
import json
import platform
from functools import partial
from pathlib import Path

from sak.cli import run, tool_parser, whole
from sak.limits import MOST_PROCESSES

PAGE = Path(__file__).parents[1] / "docs" / "BENCHMARKS.md"

# name -> the module whose run() measures it and returns Markdown, or Markdown and a figure
SECTIONS = {
    "peak": "benchmarks.peak",
    "student": "benchmarks.student",
    "steps": "benchmarks.steps",
    "published": "benchmarks.published",
    "evaluation": "benchmarks.evaluation",
    "growth": "benchmarks.growth",
    "metrics": "benchmarks.metrics",
    "boundaries": "benchmarks.boundaries",
    "teachers": "benchmarks.teachers",
    "cache": "benchmarks.cache",
    "export": "benchmarks.export",
    "adaptation": "benchmarks.adaptation",
    "giants": "benchmarks.giants",
    "gpu": "benchmarks.gpu",
}
EXAMPLE = """example:
  python tools/benchmark.py metrics boundaries
  python tools/benchmark.py steps --quick --json"""


def machine() -> str:
    """What the figures depend on."""
    import torch

    from sak.environment import cores, processor

    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    return f"{processor()}, {cores()} cores, {torch.get_num_threads()} threads of {versions}"


def main(arguments: list[str]) -> None:
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument("sections", nargs="+", choices=SECTIONS, metavar="section", help=", ".join(SECTIONS))
    parser.add_argument("--threads", type=whole(1, MOST_PROCESSES), default=1, help="of torch (default: 1)")
    parser.add_argument(
        "--page",
        type=Path,
        default=PAGE,
        metavar="FILE",
        help="that keeps the tables (default: docs/BENCHMARKS.md)",
    )
    parser.add_argument("--path", type=Path, metavar="CHECKOUT", help="of the published code, for published")
    parser.add_argument("--quick", action="store_true", help="of steps: ratios of one round, which no page keeps")
    parser.add_argument("--json", action="store_true", help="with --quick: end with one line of JSON")
    options = parser.parse_args(arguments)
    if options.quick and options.sections != ["steps"]:
        parser.error("--quick is of the section steps alone")
    if options.json and not options.quick:
        parser.error("--json is of what --quick measures: add it")
    if ("published" in options.sections) != (options.path is not None):
        parser.error("the section published and --path CHECKOUT, of the published code, belong together")
    if options.page.is_dir() or not options.page.parent.is_dir():  # told before minutes of measuring
        parser.error(f"--page {options.page} is no file in a folder that exists")

    import torch  # after the command line's own mistakes
    from benchmarks.apart import alone
    from benchmarks.page import keep

    from sak.plotting import save

    torch.set_num_threads(options.threads)
    print(machine())
    if options.quick:
        from benchmarks.steps import quick

        measured, ratios = alone(quick)
        print(f"\n{measured}", flush=True)
        if options.json:
            print(json.dumps({"section": "steps", "machine": machine(), "plain / ours": ratios}))
        return
    for name in options.sections:
        section = importlib.import_module(SECTIONS[name])
        arguments = [options.path] if name == "published" else []
        measured = alone(partial(section.run, *arguments))
        if not isinstance(measured, str):
            measured, figure = measured
            save(figure, options.page.parent / "figures" / f"{name}.png")
            measured += f"\n\n![{name}](figures/{name}.png)"
        print(f"\n## {name}\n\n{measured}", flush=True)
        keep(options.page, name, f"`python tools/benchmark.py {name}` on: {machine()}\n\n{measured}")


if __name__ == "__main__":
    run(main)

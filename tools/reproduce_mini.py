"""The paper's claims on the embedded miniature: trains every student that they are about, and writes one page.

Says a plan and how long it takes, trains what is missing, and writes results.md, results.json and figures. Ctrl-C
writes what is finished by then, and the same command goes on. --page keeps the results between their marks on a page,
its figures beside it; --section lets it keep several. See docs/RESULTS.md."""

import argparse
import re
import shlex
import sys
from pathlib import Path

from sak.cli import run, tool_parser, whole
from sak.files import about
from sak.limits import MOST_PROCESSES

CONFIG = "sak_pascal_mini"
EXAMPLE = """example:
  python tools/reproduce_mini.py --dry-run
  python tools/reproduce_mini.py --quick
  python tools/reproduce_mini.py --seeds 0,1,2,3,4 --jobs 2 --page docs/RESULTS.md
  python tools/reproduce_mini.py --seeds 0,1,2 --factors paths,teachers,tasks
  python tools/reproduce_mini.py student.stem_weights=null --output runs/raw --page docs/RESULTS.md --section raw"""


def main(arguments: list[str]) -> None:
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument("config", nargs="?", default=CONFIG, help=f"default: {CONFIG}")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that override the file's")
    parser.add_argument(
        "--seeds",
        default="0,1,2,3,4",
        metavar="LIST",
        help="of SAK, many-to-one and no teachers; the others get the first three; default: 0,1,2,3,4",
    )
    parser.add_argument(
        "--factors", metavar="LIST", help="in which the students differ from SAK, as the plan names them; default: all"
    )
    parser.add_argument(
        "--without-teachers", action="append", default=[], metavar="KEY=VALUE",
        help="an override of the students without teachers alone, as the rate at which they learn best",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=whole(1, MOST_PROCESSES), metavar="N", help="runs at a time; default: one per GPU, or one"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps and one seed, to see that it works")
    parser.add_argument("--output", metavar="DIR", help="default: <output>/<name>-reproduction of the config")
    parser.add_argument("--page", type=Path, metavar="FILE", help="a Markdown page that keeps the results")
    parser.add_argument(
        "--section", type=_section, metavar="NAME",
        help="of the page's marks, and the start of its figures' names; default: results",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="stop after the plan (and the trial that it may need)")
    options = parser.parse_intermixed_args(arguments)
    if "=" in options.config:  # an override, where the config is left out
        options.config, options.overrides = CONFIG, [options.config, *options.overrides]
    if options.page is not None and (options.page.is_dir() or not options.page.parent.is_dir()):
        parser.error(f"--page {options.page} is no file in a folder that exists")
    if options.page is not None and options.quick:
        parser.error("--quick has no results worth keeping: leave --page out")
    if options.page is None and options.section is not None:
        parser.error("--section is a part of a page: name it with --page")

    from sak.research.ablation.jobs import default_count
    from sak.research.ablation.variants import parse_seeds, split_values
    from sak.research.reproduction.reproduce import Reproduction, reproduction

    seeds = parse_seeds(options.seeds)[: 1 if options.quick else None]
    factors = None if options.factors is None else split_values(options.factors, "--factors")
    own = options.without_teachers
    ablation = reproduction(options.config, options.overrides, seeds, options.output, options.quick, factors, own)
    train, fill = ([sys.executable, str(Path(__file__).parent / name)] for name in ("train.py", "cache_teachers.py"))
    command = shlex.join(["python", "tools/reproduce_mini.py", *arguments])
    with about(ablation.output):
        runner = Reproduction(ablation, options.jobs or default_count(), train, fill, command)
        try:
            file = runner.finish(options.dry_run)
        finally:  # what is finished is worth a page, also after Ctrl-C or where another run failed
            if options.page is not None and not options.dry_run and runner.file.is_file():
                keep_results(options.page, runner.file, options.section or "results")
    if file is not None:
        print(f"Finished: {file}")


def _section(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9_-]{1,60}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of up to 60 of a-z, 0-9, _ and -")
    return text


def keep_results(page: Path, file: Path, section: str) -> None:
    """Put the results between their marks on a page, and their figures into its folder of figures."""
    from benchmarks.page import keep

    from sak.plotting import copy_small

    text = file.read_text(encoding="utf-8").partition("\n")[2]
    (page.parent / "figures").mkdir(exist_ok=True)
    for picture in ("bias.png", "efficiency.png", "routing.png"):
        if (file.parent / picture).is_file():
            copy_small(file.parent / picture, page.parent / "figures" / f"{section}_{picture}")
            text = text.replace(f"]({picture})", f"](figures/{section}_{picture})")
    keep(page, section, text)


if __name__ == "__main__":
    run(main)

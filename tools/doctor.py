"""Check the data and the weights that a config needs, and say what the experiment will cost. Nothing is written.

Reports all that is wrong, in groups, and how to mend it; then a plan: parameters, steps, memory and disk. The memory
is that of one training step on one device, counted storage by storage; allocators and kernels need some more.

Of a vision vocabulary it makes some samples of each kind, and --sheet draws the first of them.
"""

import os
import sys
from pathlib import Path

from omegaconf import DictConfig

from sak import config
from sak.cli import config_parser, run, whole
from sak.config.derived import left_out
from sak.errors import UserError
from sak.limits import MOST_PROCESSES

EXAMPLE = """example:
  python tools/doctor.py configs/sak_pascal_mini.yaml
  python tools/doctor.py configs/sak_pascal_mini.yaml data.root=/data/mini_context --quick
  python tools/doctor.py configs/vary_mini.yaml --sheet sheet.png

exit code: 0 all is well, 1 something is wrong with data or weights, 2 the config cannot be read"""


def main(arguments: list[str]) -> None:
    parser = config_parser(__doc__, EXAMPLE)
    parser.add_argument(
        "--quick", nargs="?", type=whole(1), const=200, metavar="N", help="read N images only (default: 200), not all"
    )
    parser.add_argument("--workers", type=whole(0, MOST_PROCESSES), help="processes that read (default: data.workers)")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="of a vision vocabulary: draw its first samples")
    options = parser.parse_args(arguments)
    experiment = config.load(options.config, options.overrides)
    if not left_out(experiment.stages.vocabulary):
        return examine_vocabulary(experiment.vocabulary.data, options.quick, options.sheet)
    if options.sheet:
        raise UserError(f"--sheet is of a vision vocabulary, but {options.config} trains none")

    from sak.preflight.doctor import describe_plan, diagnose  # after the config's own mistakes: it loads torch
    from sak.preflight.summary import report

    workers = min(experiment.data.workers, os.cpu_count() or 1) if options.workers is None else options.workers
    survey, plan = diagnose(experiment, options.quick, workers)
    for subject, fact in survey.facts:
        print(f"{subject:<16}{fact}")
    print(f"\nplan of {experiment.name}\n{describe_plan(plan)}" if plan else "\nno plan: see below")
    if survey.problems:
        print(f"\nproblems\n{report(survey.problems)}")
        sys.exit(1)
    print("\nall is well")


def examine_vocabulary(data: DictConfig, samples: int | None, sheet: Path | None) -> None:
    from sak.files import replacing  # after the config's own mistakes: what follows loads torch
    from sak.vocabulary.data import build
    from sak.vocabulary.data.examination import READ, contact_sheet, examine

    facts, problems = examine(data, samples or READ)
    for subject, fact in facts:
        print(f"{subject:<16}{fact}")
    if problems:
        print("\nproblems", *problems, sep="\n")
        sys.exit(1)
    if sheet:
        with replacing(sheet) as partial:
            contact_sheet(build(data, "train")).savefig(partial, format="png")
        print(f"\nthe first training samples are in {sheet}")
    print("\nall is well")


if __name__ == "__main__":
    run(main)

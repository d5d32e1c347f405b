"""Check the data and the weights that a config needs, and say what the experiment will cost. Nothing is written.

Reports all that is wrong, in groups, and how to mend it; then a plan: parameters, steps, memory and disk. The memory
is that of one training step on one device, counted storage by storage; allocators and kernels need some more.
"""

import os
import sys

from sak import config
from sak.cli import config_parser, run, whole
from sak.limits import MOST_PROCESSES

EXAMPLE = """example:
  python tools/doctor.py configs/sak_pascal_mini.yaml
  python tools/doctor.py configs/sak_pascal_mini.yaml data.root=/data/mini_context --quick

exit code: 0 all is well, 1 something is wrong with data or weights, 2 the config cannot be read"""


def main(arguments: list[str]) -> None:
    parser = config_parser(__doc__, EXAMPLE)
    parser.add_argument(
        "--quick", nargs="?", type=whole(1), const=200, metavar="N", help="read N images only (default: 200), not all"
    )
    parser.add_argument("--workers", type=whole(0, MOST_PROCESSES), help="processes that read (default: data.workers)")
    options = parser.parse_args(arguments)
    experiment = config.load(options.config, options.overrides)

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


if __name__ == "__main__":
    run(main)

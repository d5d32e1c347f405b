"""Compute the teachers' features of a config ahead of training, into the directory cache.path."""

from sak import config
from sak.cli import config_parser, run
from sak.errors import UserError
from sak.files import about

EXAMPLE = """example:
  python tools/cache_teachers.py configs/sak_pascal_mini.yaml cache.path=cache cache.views=4
  python tools/train.py configs/sak_pascal_mini.yaml cache.path=cache cache.views=4

Several processes share the work: torchrun --nproc_per_node 4 tools/cache_teachers.py ..., or separate commands, on one
machine or several with one file system, --part 1/2 and --part 2/2. Ctrl-C at any time: the same command goes on."""


def main(arguments: list[str]) -> None:
    parser = config_parser(__doc__, EXAMPLE)
    parser.add_argument("--part", metavar="K/N", help="begin at the K-th of N parts; all others follow it")
    parser.add_argument("--verify", action="store_true", help="check all that is stored, compute anew what is corrupt")
    options = parser.parse_intermixed_args(arguments)
    part = _part(options.part) if options.part else None
    experiment = config.load(options.config, options.overrides)

    from sak.preflight.fill_cache import fill  # after the config's own mistakes: it loads torch and the model libraries

    with about(experiment.cache.path or "cache.path"):
        print(fill(experiment, part, options.verify))


def _part(text: str) -> tuple[int, int]:
    numbers = text.split("/")
    if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
        raise UserError(f"--part is {text}, but must be two numbers as in 1/4")
    k, n = map(int, numbers)
    if not 1 <= k <= n:
        raise UserError(f"--part is {text}, but must be one of 1/{n} to {n}/{n}")
    return k - 1, n


if __name__ == "__main__":
    run(main)

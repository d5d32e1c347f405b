"""Compare a small frozen model at several scales (S2) with a larger one: metrics, operations, features, classes."""

from sak import config
from sak.cli import config_parser, run, whole
from sak.errors import UserError
from sak.files import about

EXAMPLE = """example:
  python tools/compare_scales.py configs/scales_mini.yaml --small small --large large --ceiling ceiling

Models are named as in the config's teachers and probe.extra. The small one is probed at the first, the first two, ...
of the scales, at the first two as a whole image and as a sum, the others at one scale; a ceiling is another model like
the large one. It writes <output>/<name>-scales/. The same command again resumes: what is done is not done again."""


def main(arguments: list[str]) -> None:
    parser = config_parser(__doc__, EXAMPLE)
    parser.add_argument("--small", required=True, metavar="NAME", help="the model that is seen at several scales")
    parser.add_argument("--large", required=True, metavar="NAME", help="the one that it is compared with")
    parser.add_argument("--ceiling", metavar="NAME", help="another like the large one: what is reachable")
    parser.add_argument("--scales", default="1,2,3", metavar="LIST", help="default: 1,2,3")
    parser.add_argument("--seeds", default="0,1,2", metavar="LIST", help="of the heads; default: 0,1,2")
    parser.add_argument("--images", type=whole(1), default=300, help="of a split, for linear maps (default: 300)")
    options = parser.parse_intermixed_args(arguments)
    scales = _numbers("--scales", options.scales)
    seeds = _numbers("--seeds", options.seeds)
    experiment = config.load(options.config, options.overrides)

    from sak.research.scales.compare import Comparison  # after the command line's own mistakes: it loads torch

    with about(experiment.output):
        models = options.small, options.large, options.ceiling
        print(f"Finished: {Comparison(experiment, *models, scales, seeds, options.images).finish()}")


def _numbers(option: str, text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isdecimal() and len(part) < 10 for part in parts) or len(set(parts)) < len(parts):
        raise UserError(f"{option} is {text!r}, but must be different whole numbers with commas between them")
    return [int(part) for part in parts]


if __name__ == "__main__":
    run(main)

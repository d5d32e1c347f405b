"""How alike the frozen teachers of a config are, and the sources of a student: linear CKA and linear reconstruction."""

from sak import config
from sak.cli import config_parser, run, whole
from sak.files import about

EXAMPLE = """example:
  python tools/compare_features.py configs/sak_pascal_mini.yaml
  python tools/compare_features.py configs/sak_pascal_mini.yaml --student runs/sak_pascal_mini probe.scales=null

It compares the config's teachers, the models of probe.extra and, where probe.scales is given, the S2 variant of each,
and writes similarity.png and similarity.json to <output>/<name>-similarity/."""


def main(arguments: list[str]) -> None:
    parser = config_parser(__doc__, EXAMPLE)
    parser.add_argument(
        "--student", metavar="RUN", help="a finished run or a bundle: its stem and paths are compared too"
    )
    parser.add_argument("--images", type=whole(1), default=300, help="images of each split (default: 300)")
    options = parser.parse_intermixed_args(arguments)
    experiment = config.load(options.config, options.overrides)

    from sak.research.similarity.features import (
        compare,  # after the config's own mistakes: it loads torch and the model libraries
    )

    with about(experiment.output):
        print(f"Finished: {compare(experiment, options.student, options.images)}")


if __name__ == "__main__":
    run(main)

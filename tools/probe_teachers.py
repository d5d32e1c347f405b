"""Probe the frozen teachers of a config: the same small heads on each of them, one for each task."""

from sak import config
from sak.cli import config_parser, run
from sak.files import about

EXAMPLE = """example:
  python tools/probe_teachers.py configs/sak_pascal_mini.yaml
  python tools/probe_teachers.py configs/sak_pascal_mini.yaml name=longer probe.steps=2000 probe.scales=null

It probes the config's teachers, the models of probe.extra and, where probe.scales is given, the S2 variant of each,
and writes <output>/<name>-probe/. The same command again resumes: what is done is not done again."""


def main(arguments: list[str]) -> None:
    parser = config_parser(__doc__, EXAMPLE)
    options = parser.parse_args(arguments)
    experiment = config.load(options.config, options.overrides)

    from sak.research.probing.probe import (
        Probe,  # after the config's own mistakes: it loads torch and the model libraries
    )

    with about(experiment.output):
        print(f"Finished: {Probe(experiment).finish()}")


if __name__ == "__main__":
    run(main)

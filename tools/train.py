"""Distil the teachers of a config into a student, train it on the tasks and evaluate it."""

import os

from sak import config
from sak.cli import config_parser, run

EXAMPLE = """example:
  python tools/train.py configs/sak_pascal_mini.yaml
  python tools/train.py configs/sak_pascal_mini.yaml name=longer stages.multitask.steps=3000

The same command again resumes an interrupted run. A finished one says so and stops."""


def main(arguments: list[str]) -> None:
    parser = config_parser(__doc__, EXAMPLE)
    options = parser.parse_args(arguments)
    experiment = config.load(options.config, options.overrides)

    from sak.training.run_directory import RunDirectory
    from sak.training.train import train  # after the config's own mistakes: it loads torch and the model libraries

    already = RunDirectory(experiment).finished
    results = train(experiment).results
    if os.environ.get("RANK", "0") == "0":  # set by torchrun
        print(f"{'This run is already finished' if already else 'Finished'}: {results}")


if __name__ == "__main__":
    run(main)

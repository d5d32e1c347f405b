"""Distil a config's teachers into a student, train it on the tasks and evaluate it; or train a vision vocabulary."""

import os

from sak import config
from sak.cli import config_parser, run
from sak.config.derived import left_out

EXAMPLE = """example:
  python tools/train.py configs/sak_pascal_mini.yaml
  python tools/train.py configs/sak_pascal_mini.yaml name=longer stages.multitask.steps=3000
  python tools/train.py configs/vary_mini.yaml stages.vocabulary.steps=3000

The same command again resumes an interrupted run. A finished one says so and stops."""


def main(arguments: list[str]) -> None:
    parser = config_parser(__doc__, EXAMPLE)
    options = parser.parse_args(arguments)
    experiment = config.load(options.config, options.overrides)

    # After the config's own mistakes: they load torch and the model libraries.
    from sak.training.run_directory import RunDirectory

    if left_out(experiment.stages.vocabulary):
        from sak.training.train import train
    else:
        from sak.vocabulary.training.train import train

    already = RunDirectory(experiment).finished
    results = train(experiment).results
    if os.environ.get("RANK", "0") == "0":  # set by torchrun
        print(f"{'This run is already finished' if already else 'Finished'}: {results}")


if __name__ == "__main__":
    run(main)

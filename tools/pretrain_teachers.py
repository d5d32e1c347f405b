"""Train a teacher of the miniature committee, export its weights and measure them."""

import shlex

from sak.cli import positive, run, tool_parser, whole
from sak.files import about
from sak.limits import MOST_PROCESSES, MOST_SEED

EXAMPLE = """example:
  python tools/pretrain_teachers.py sam --data data/mini_context --output teachers/mini
  python tools/pretrain_teachers.py vit --data data/mini_context --width 52 --output runs/small --work runs/small"""


def main(arguments: list[str]) -> None:
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument(
        "name", metavar="dinov2|clip|sam|vit", help="the miniature to train, of configs/sak_pascal_mini.yaml"
    )
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="DIR",
        help="archives to learn from; the first one's val split measures",
    )
    parser.add_argument("--output", default="teachers/mini", metavar="DIR", help="for weights, card and figure")
    parser.add_argument("--work", default="runs/pretrain", metavar="DIR", help="for the checkpoint that resumes a run")
    parser.add_argument("--steps", type=whole(1), help="optimizer steps (default: the recipe's)")
    parser.add_argument(
        "--batch-size", type=whole(2), help="images a step, which are compared with each other (default: the recipe's)"
    )
    parser.add_argument("--learning-rate", type=positive, metavar="RATE", help="peak rate (default: the recipe's)")
    parser.add_argument("--init", metavar="FILE", help="weights of the same miniature to go on from")
    parser.add_argument("--width", type=whole(8, 4096), help="of the vit's tokens (default: the miniature's)")
    parser.add_argument("--seed", type=whole(0, MOST_SEED), default=0)
    parser.add_argument("--threads", type=whole(1, MOST_PROCESSES), default=1, help="CPU threads (default: 1)")
    options = parser.parse_args(arguments)

    from teachers.pretrain.run import pretrain  # after the command line's own mistakes: it loads the model libraries

    command = shlex.join(["python", "tools/pretrain_teachers.py", *arguments])
    with about(options.output):
        pretrain(
            options.name,
            options.data,
            options.output,
            options.work,
            command,
            steps=options.steps,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            init=options.init,
            width=options.width,
            seed=options.seed,
            threads=options.threads,
        )


if __name__ == "__main__":
    run(main)

"""Train a teacher of the miniature committee, export its weights and measure them.

Exit code 1: it does not know on held-out scenes what it should; a line says what.
"""

import shlex
import sys

from sak.cli import run, tool_parser, whole
from sak.files import about
from sak.limits import MOST_PROCESSES, MOST_SEED

EXAMPLE = """example:
  python tools/pretrain_teachers.py dinov2 --data data/mini_pairs --output teachers/mini
  python tools/pretrain_teachers.py vit --data data/mini_pairs --width 52 --output runs/small --work runs/small
the scenes to learn from:
  python -c "from sak.data.mini import ensure; ensure('data/mini_pairs', unlabelled=16000, positives=True)" """


def main(arguments: list[str]) -> None:
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument(
        "name", metavar="dinov2|clip|sam|vit|all", help="what to train: a miniature of configs/sak_pascal_mini.yaml"
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="mini_context with unlabelled scenes")
    parser.add_argument("--output", default="teachers/mini", metavar="DIR", help="for weights, card and figure")
    parser.add_argument(
        "--work", default="runs/pretrain", metavar="DIR", help="for the checkpoint that resumes a run, and TensorBoard"
    )
    parser.add_argument("--steps", type=whole(1), help="optimizer steps of all phases (default: the recipe's)")
    parser.add_argument(
        "--batch-size",
        type=whole(2),
        help="images a step of the first phase, which are compared with each other (default: the recipe's)",
    )
    parser.add_argument("--init", metavar="FILE", help="checkpoint of an earlier run to go on from, heads and all")
    parser.add_argument("--width", type=whole(8, 4096), help="of the vit's tokens (default: the miniature's)")
    parser.add_argument("--seed", type=whole(0, MOST_SEED), default=0)
    parser.add_argument("--threads", type=whole(1, MOST_PROCESSES), default=1, help="CPU threads (default: 1)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, ... (default: cpu)")
    parser.add_argument("--compile", action="store_true", help="compile the blocks: a minute each, then a third faster")
    parser.add_argument("--export", action="store_true", help="export and measure the checkpoint without training on")
    options = parser.parse_args(arguments)

    from teachers.pretrain.run import NAMES, Options, pretrain  # after the command line's own mistakes: it is heavy

    chosen = Options(
        data=options.data,
        output=options.output,
        work=options.work,
        command=shlex.join(["python", "tools/pretrain_teachers.py", *arguments]),
        steps=options.steps,
        batch_size=options.batch_size,
        start=options.init,
        width=options.width,
        seed=options.seed,
        threads=options.threads,
        device=options.device,
        compile=options.compile,
        export=options.export,
    )
    with about(options.output):
        missing = [
            line for name in (NAMES if options.name == "all" else [options.name]) for line in pretrain(name, chosen)
        ]
    print(*missing, sep="\n", end="\n" if missing else "")
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    run(main)

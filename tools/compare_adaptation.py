"""Compare ways to use a frozen backbone: linear probe, S2, LoSA, LoRA, adapters, BitFit, full tuning, a student.

Trains each method with each seed, in runs that the same command goes on with after Ctrl-C or a kill; measures weights,
step time and peak memory of each; writes one table and figures of accuracy against each cost. See docs/losa.md."""

from sak import config
from sak.cli import config_parser, run, whole
from sak.files import about

EXAMPLE = """example:
  python tools/compare_adaptation.py configs/adapt/mini.yaml --seeds 0,1,2 --student runs/sak_pascal_mini
  python tools/compare_adaptation.py configs/adapt/mini.yaml --quick --methods linear,losa,lora
  python tools/compare_adaptation.py configs/adapt/pascal.yaml --set full:stages.multitask.optim.lr=2e-5
  python tools/compare_adaptation.py configs/adapt/pascal.yaml teachers.dinov2.weights=random --costs-only"""
QUICK = ["stages.multitask.steps=2", "stages.multitask.epochs=null"]


def main(arguments: list[str]) -> None:
    parser = config_parser(__doc__, EXAMPLE)
    parser.add_argument(
        "--methods", metavar="LIST", help="of linear, linear_s2, losa, losa_s2, lora, ...; default: all"
    )
    parser.add_argument("--seeds", default="0", metavar="LIST", help="default: 0")
    parser.add_argument("--baseline", default="linear", metavar="METHOD", help="of Δm; default: linear")
    parser.add_argument("--student", action="append", default=[], metavar="RUN", help="a finished run, for its row")
    parser.add_argument(
        "--set", action="append", default=[], metavar="METHOD:KEY=VALUE", help="an override of one method alone"
    )
    parser.add_argument("--scales", default="1,2", metavar="LIST", help="of S2; default: 1,2")
    parser.add_argument("--steps", type=whole(1), default=5, metavar="N", help="that are timed; default: 5")
    parser.add_argument("--costs-only", action="store_true", help="train nothing")
    parser.add_argument("--quick", action="store_true", help="two steps of each run, to see that all of it works")
    parser.add_argument("--output", metavar="DIR", help="default: <output>/<name>-comparison of the config")
    options = parser.parse_intermixed_args(arguments)
    overrides = [*options.overrides, *(QUICK if options.quick else [])]
    config.load(options.config, overrides)  # its mistakes are told before anything heavy is loaded

    from sak.research.ablation.variants import parse_seeds
    from sak.research.adaptation.compare import ALL, Comparison

    comparison = Comparison(
        options.config,
        overrides,
        options.methods.split(",") if options.methods else ALL,
        parse_seeds(options.seeds),
        options.baseline,
        options.student,
        options.set,
        options.scales,
        options.output,
    )
    with about(comparison.output):
        table = comparison.finish(options.steps, options.costs_only)
    print(f"Finished: {table}")


if __name__ == "__main__":
    run(main)

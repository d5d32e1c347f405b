"""Ablate a config: subsets of its teachers, routers, losses and seeds, each an ordinary run; or select teachers.

With a config: says a plan and how long it takes, trains what is missing, and writes one table (Markdown, CSV, JSON,
PNG). The same command goes on after Ctrl-C or a kill. Factors vary one at a time around the config.
With a run or bundle and --select: greedy forward selection and Shapley values of its teachers, without training.
See docs/ablation.md."""

import sys
from pathlib import Path

from sak import config
from sak.cli import config_parser, run, whole
from sak.errors import UserError
from sak.files import about
from sak.limits import MOST_PROCESSES

EXAMPLE = """example:
  python tools/ablate_teachers.py configs/sak_pascal_mini.yaml --subsets all --kinds retrained,masked --seeds 0,1,2
  python tools/ablate_teachers.py configs/sak_pascal_mini.yaml --routers mor,token,equal,sum --losses cos,l2 --dry-run
  python tools/ablate_teachers.py configs/sak_pascal_mini.yaml --vary student.noisy_gating=true,false --output noise
  python tools/ablate_teachers.py configs/sak_pascal.yaml --subsets all --launcher slurm --resource slurm_partition=gpu
  python tools/ablate_teachers.py runs/sak_pascal_mini --select --value semseg.miou --images 100"""


def main(arguments: list[str]) -> None:
    parser = config_parser(__doc__, EXAMPLE)
    variants = parser.add_argument_group("variants, comma-separated; each beside the config as it stands")
    variants.add_argument(
        "--subsets", metavar="LIST", help="all, leave-one-out, single, none, or as in dinov2+clip,sam"
    )
    variants.add_argument("--routers", metavar="LIST", help="values of student.router")
    variants.add_argument("--adapter-ratios", metavar="LIST", help="values of student.adapter_ratio")
    variants.add_argument("--losses", metavar="LIST", help="values of stages.*.loss")
    variants.add_argument("--standardise", metavar="LIST", help="values of stages.*.standardise")
    variants.add_argument("--task-balance", metavar="LIST", help="values of stages.multitask.task_balance")
    variants.add_argument("--scales", metavar="LIST", help="of every teacher, as in [1],[1,2]: S2 teachers")
    variants.add_argument("--vary", action="append", default=[], metavar="KEY=LIST", help="values of any other key")
    variants.add_argument("--grid", action="store_true", help="cross all of these, instead of one at a time")
    parser.add_argument("--kinds", default="retrained", help="of --subsets: retrained, masked, or both with a comma")
    parser.add_argument("--seeds", default="0", metavar="LIST", help="default: 0")
    parser.add_argument(
        "--baseline", default="config", metavar="NAME", help="variant of Δm; default: the config itself"
    )
    parser.add_argument(
        "--jobs",
        type=whole(1, MOST_PROCESSES),
        metavar="N",
        help="runs at a time; default: one per GPU, or one; of a cluster all",
    )
    parser.add_argument(
        "--launcher", choices=["here", "slurm", "local"], default="here", help="local: submitit's, to try it"
    )
    parser.add_argument(
        "--resource",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of a run on a cluster, as submitit calls it: slurm_partition=gpu, timeout_min=240",
    )
    parser.add_argument(
        "--output", metavar="DIR", help="default: <output>/<name>-ablation of the config, RUN/selection"
    )
    parser.add_argument("--dry-run", action="store_true", help="stop after the plan (and the trial that it may need)")
    selection = parser.add_argument_group("selection of teachers by masked students")
    selection.add_argument("--select", action="store_true", help="of a run or bundle, or of the ablation's students")
    selection.add_argument("--value", help="delta_m (default) or a metric as in semseg.miou")
    selection.add_argument("--images", type=whole(1), metavar="N", help="of the validation set; default: all")
    selection.add_argument("--pairs", type=whole(1), metavar="N", help="sampled orders, beyond 6 teachers; default: 20")
    selection.add_argument("--data", metavar="ROOT", help="the data set's folder, where a bundle does not say")
    options = parser.parse_intermixed_args(arguments)
    for name in ("value", "images", "pairs", "data"):
        if getattr(options, name) is not None and not options.select:
            parser.error(f"--{name} is of the selection: add --select, or leave it out")
    if options.resource and options.launcher == "here":
        parser.error("--resource is of a cluster's runs: add --launcher slurm, or leave it out")
    place = Path(options.config)
    if place.suffix in (".yaml", ".yml") or (not place.exists() and config.find(place)):
        _ablate(options)
    elif options.select:
        _select(options)
    else:
        raise UserError(f"{options.config} is no config: give one, or a run or bundle and --select")


def _ablate(options) -> None:
    committee = list(config.load(options.config, options.overrides).teachers)

    from sak.research.ablation.report import KINDS, MASKED, RETRAINED
    from sak.research.ablation.variants import CONFIG, Ablation, all_variants, parse_seeds, parse_subsets

    kinds = options.kinds.split(",")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UserError(f"--kinds has {unknown[0]!r}, but knows only {' and '.join(KINDS)}")
    if MASKED in kinds and options.subsets is None:
        raise UserError("--kinds masked needs --subsets: say which teachers to keep, as in --subsets all")
    factors = {
        "router": options.routers,
        "adapter_ratio": options.adapter_ratios,
        "loss": options.losses,
        "standardise": options.standardise,
        "task_balance": options.task_balance,
        "scales": options.scales,
    }
    for text in options.vary:
        key, equals, values = text.partition("=")
        if not key or not equals or not values:
            raise UserError(f"--vary {text} is not of the form KEY=VALUE,VALUE")
        factors[key] = values
    chosen = all_variants(
        committee,
        options.subsets if RETRAINED in kinds else None,
        {factor: values for factor, values in factors.items() if values is not None},
        options.grid,
    )
    masked = parse_subsets(options.subsets, committee) if MASKED in kinds else []
    seeds = parse_seeds(options.seeds)
    ablation = Ablation(options.config, options.overrides, chosen, seeds, options.baseline, options.output)

    from sak.research.ablation.ablate import (
        AblationRunner,  # after the command line's own mistakes: it loads the model libraries
    )
    from sak.research.ablation.jobs import default_count

    tools = Path(__file__).parent
    train, fill = ([sys.executable, str(tools / name)] for name in ("train.py", "cache_teachers.py"))
    start, jobs = None, options.jobs or default_count()
    if options.launcher != "here":
        from sak.research.ablation.cluster import launcher

        start = launcher(options.launcher, ablation.output / "cluster", _resources(options.resource))
        jobs = options.jobs or len(ablation.runs)
    runner = AblationRunner(ablation, masked, jobs, train, fill, start)
    with about(ablation.output):
        table = runner.finish(options.dry_run)
    if table is None:
        return
    if options.select:
        students = [str(run.directory.path) for run in ablation.of(CONFIG)]
        _selection(options, students, ablation.output / "selection", ablation.output, ablation.output / "masked")
    print(f"Finished: {table}")


def _resources(given: list[str]) -> dict[str, int | str]:
    found: dict[str, int | str] = {}
    for text in given:
        key, _, value = text.partition("=")
        if not key or not value:
            raise UserError(f"--resource {text} is not of the form KEY=VALUE")
        found[key] = int(value) if value.isdecimal() else value
    return found


def _select(options) -> None:
    from sak.evaluation.subject import default_output

    if options.overrides:
        raise UserError(
            f"{options.config} is no config, so that {options.overrides[0]} overrides nothing: leave it out"
        )
    above = Path(options.config).resolve().parent.parent  # a run of <ablation>/runs?
    ablation = above if (above / "ablation.json").is_file() else None
    output = Path(options.output) if options.output else default_output(options.config, "selection")
    _selection(options, [options.config], output, ablation)
    print(f"Finished: {output / 'selection.md'}")


def _selection(options, students: list[str], output: Path, ablation: Path | None, measured: Path | None = None) -> None:
    from sak.research.selection.select import select

    how = (options.value or "delta_m", options.images, options.pairs or 20)
    with about(output):
        select(students, output, *how, root=options.data, ablation=ablation, measured=measured)


if __name__ == "__main__":
    run(main)

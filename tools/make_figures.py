"""Make the figures of the pages anew, by the commands that the pages name, and put them into docs/figures.

Trainings that are finished are not repeated, and a figure that is there is not made again: the same command goes on
after Ctrl-C or a kill, and --again runs the commands in any case. All of it takes many hours, so figures can be
named. The tables of the pages are written by hand from what the commands print."""

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sak.cli import run, tool_parser
from sak.errors import UserError

EXAMPLE = """example:
  python tools/make_figures.py --list
  python tools/make_figures.py readme routing"""
ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"
MINI = "configs/sak_pascal_mini.yaml"
SHORT = (  # with the rates, the weight of distillation and the norms that the config had when these were made
    "stages.distill.steps=120 stages.distill.optim.lr=1e-3 student.path_norm=true student.aligner=null "
    "stages.distill.batch_size=8 stages.multitask.alpha=1 stages.multitask.optim.lr=1e-3 stages.multitask.batch_size=8 "
    "cache.path=cache cache.views=2 'cache.stages=[distill,multitask]'"
)
TRAIN = f"python tools/train.py {MINI}"
ROUTERS = (
    f"python tools/ablate_teachers.py {MINI} --routers token,token_topk,equal,sum --vary student.noisy_gating=false "
    f"--seeds 0,1,2 --output runs/routers stages.multitask.steps=120 {SHORT}"
)
STUDENTS = (
    f"python tools/ablate_teachers.py {MINI} --subsets dinov2+clip --seeds 0,1,2 --output runs/students "
    f"stages.multitask.steps=120 {SHORT}"
)
BEGUN = "from=runs/students/runs/{start}-seed{seed} seed={seed} stages.multitask.steps=120 " + SHORT
NO_DISTILLATION = "stages.distill.steps=0 'student.trained_beside=[routers,heads]'"
CHANGED = {  # {run: (what it starts from, what becomes of it)}
    "added": ("dinov2+clip", "student.add_teacher=sam"),
    "heads_rest": ("dinov2+clip", "student.add_teacher=sam 'student.trained_beside=[routers]'"),
    "trained_on": ("dinov2+clip", f"student.update_teacher=clip {NO_DISTILLATION}"),
    "removed": ("config", "student.remove_teacher=sam"),
    "removed_on": ("config", f"student.remove_teacher=sam {NO_DISTILLATION}"),
}
PATHS = (
    STUDENTS,
    *(
        f"{TRAIN} name={name}-{seed} {BEGUN.format(start=start, seed=seed)} {change}"
        for seed in range(3)
        for name, (start, change) in CHANGED.items()
    ),
    "python tools/compare_runs.py --baseline config --output runs/changed "
    + " ".join(f"runs/students/runs/{name}-seed{seed}" for name in ("config", "dinov2+clip") for seed in range(3))
    + "".join(f" runs/{name}-{seed}" for name in CHANGED for seed in range(3)),
)
ABLATION = (
    f"python tools/ablate_teachers.py {MINI} --subsets single,none --kinds retrained,masked --select --seeds 0,1,2 "
    f"--output runs/ablation stages.multitask.steps=240 {SHORT}"
)
REPRODUCTION = (
    "python tools/reproduce_mini.py stages.distill.steps=240 stages.multitask.steps=450 cache.path=cache cache.views=3 "
    "'cache.stages=[distill,multitask]' --without-teachers stages.multitask.optim.lr=1e-3 --seeds 0,1,2 "
    "--factors paths,teachers,tasks --jobs 2 --page docs/RESULTS.md"
)
PHOTOGRAPHS = (
    'python -c "from pathlib import Path; from PIL import Image; from skimage import data; '
    "Path('runs/photographs').mkdir(parents=True, exist_ok=True); [Image.fromarray(getattr(data, name)())"
    ".save(f'runs/photographs/{name}.png') for name in ('astronaut', 'coffee')]\""
)
PREDICT = (
    "python tools/predict.py runs/sak_pascal_mini runs/photographs data/mini_context/JPEGImages/2010_000009.jpg "
    "--out runs/predictions --longest-edge 160"
)


@dataclass(frozen=True)
class Source:
    """
    Attributes:
        page: that shows the figures.
        commands: that make them, in turn, from the repository's root.
        figures: {name in docs/figures: where the commands leave it}; of a pattern the last one by name is taken.
    """

    page: str
    commands: tuple[str, ...]
    figures: dict[str, str]


SOURCES = {
    "readme": Source(
        "README.md",
        (TRAIN,),
        {
            "predictions.png": "runs/sak_pascal_mini/panels/*.png",
            "routing.png": "runs/sak_pascal_mini/routing/*.png",
        },
    ),
    "predicted": Source(
        "docs/deployment.md",
        (TRAIN, PHOTOGRAPHS, PREDICT),
        {
            f"predicted_{name}.png": f"runs/predictions/panels/{name}.png"
            for name in ("astronaut", "coffee", "2010_000009")
        },
    ),
    "results": Source(
        "docs/RESULTS.md",
        (REPRODUCTION,),
        {f"results_{name}.png": f"runs/sak_pascal_mini-reproduction/{name}.png" for name in ("bias", "routing")},
    ),
    "routing": Source(
        "docs/routing.md",
        (
            TRAIN,
            "python tools/inspect_router.py runs/sak_pascal_mini",
            "python tools/inspect_fidelity.py runs/sak_pascal_mini",
        ),
        {
            "knock_out.png": "runs/sak_pascal_mini/inspection/knock_out.png",
            "leaning.png": "runs/sak_pascal_mini/inspection/leaning.png",
            "history.png": "runs/sak_pascal_mini/inspection/history.png",
            "pca.png": "runs/sak_pascal_mini/fidelity/pca-block7.png",
        },
    ),
    "tokens": Source(
        "docs/routing.md",
        (ROUTERS, "python tools/inspect_router.py runs/routers/runs/router=token-seed0"),
        {"tokens.png": "runs/routers/runs/router=token-seed0/inspection/tokens-normals.png"},
    ),
    "probing": Source(
        "docs/probing.md",
        (
            TRAIN,
            f"python tools/probe_teachers.py {MINI} probe.scales=null",
            f"python tools/compare_features.py {MINI} --student runs/sak_pascal_mini probe.scales=null",
        ),
        {
            "probe.png": "runs/sak_pascal_mini-probe/probe.png",
            "similarity.png": "runs/sak_pascal_mini-similarity/similarity.png",
        },
    ),
    "ablation": Source(
        "docs/ablation.md",
        (ABLATION,),
        {"ablation.png": "runs/ablation/ablation.png", "selection.png": "runs/ablation/selection/selection.png"},
    ),
    "paths": Source("docs/paths.md", PATHS, {"paths.png": "runs/changed/comparison.png"}),
    "routers": Source("docs/routers_and_losses.md", (ROUTERS,), {"routers.png": "runs/routers/ablation.png"}),
    "losses": Source(
        "docs/routers_and_losses.md",
        (
            f"python tools/ablate_teachers.py {MINI} --losses token_cos+l1 --standardise phi_s,ema "
            "--vary stages.distill.teacher_dropping=0.5 --task-balance uncertainty,gradnorm --seeds 0,1,2 "
            f"--output runs/losses stages.multitask.steps=120 {SHORT}",
        ),
        {"losses.png": "runs/losses/ablation.png"},
    ),
    "scales": Source(
        "docs/s2.md",
        ("python tools/compare_scales.py configs/scales_mini.yaml --small small --large large --ceiling ceiling",),
        {"scales.png": "runs/scales_mini-scales/scales.png"},
    ),
    "adaptation": Source(
        "docs/losa.md",
        (
            TRAIN,
            "python tools/compare_adaptation.py configs/adapt/mini.yaml --seeds 0,1,2 --steps 3 --student "
            "runs/sak_pascal_mini --set full:stages.multitask.optim.lr=2e-4",
        ),
        {"adaptation_mini.png": "runs/mini-comparison/comparison.png"},
    ),
}


def main(arguments: list[str]) -> None:
    parser = tool_parser(__doc__, EXAMPLE)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(SOURCES)}; default: all")
    parser.add_argument("--again", action="store_true", help="run the commands also where the figures are there")
    parser.add_argument("--list", action="store_true", help="say which commands make which figures, and stop")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in SOURCES]:
        raise UserError(f"there is no {unknown[0]!r} to make: {', '.join(SOURCES)}")
    chosen = options.names or list(SOURCES)
    for number, name in enumerate(chosen, 1):
        source = SOURCES[name]
        print(f"{number} of {len(chosen)}: {name}, for {source.page}: {', '.join(source.figures)}", flush=True)
        if options.list:
            print("\n".join(f"  {command}" for command in source.commands))
            continue
        if options.again or not all(made(place) for place in source.figures.values()):
            for command in source.commands:
                carry_out(command)
        for figure, place in source.figures.items():
            publish(place, FIGURES / figure)


def carry_out(command: str) -> None:
    """Run a command of a page from the repository's root.

    Raises:
        UserError: it failed.
        KeyboardInterrupt: the user stopped it.
    """
    print(f"+ {command}", flush=True)
    words = shlex.split(command)
    code = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, check=False).returncode
    if code == 130:
        raise KeyboardInterrupt("stopped; the same command goes on from there")
    if code:
        raise UserError(f"{command} ended with {code}: mend what it says, and start again")


def made(place: str) -> Path | None:
    """The figure that commands have left at a place below the repository's root; None if there is none."""
    return max(ROOT.glob(place), default=None)


def publish(place: str, target: Path) -> None:
    """
    Raises:
        UserError: the commands have not left a figure there.
    """
    from sak.plotting import copy_small

    source = made(place)
    if source is None:
        raise UserError(f"there is no {place}, which the commands were to make: --again runs them once more")
    copy_small(source, target)
    print(f"{target} <- {source.relative_to(ROOT)}")


if __name__ == "__main__":
    run(main)

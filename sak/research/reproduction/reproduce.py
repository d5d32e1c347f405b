"""Run a reproduction: a plan, then what is missing of it, then one page. Its directory is that of an ablation, with
results.md     the claims and the students; results.json has every seed's metrics
bias.png       what each student gains in each task
efficiency.png what labels are worth
routing.png    the weights of the routers of SAK's first seed
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from sak import config as configuration
from sak.environment import cores, processor
from sak.errors import UserError
from sak.files import write_json, write_text
from sak.metrics import Metrics
from sak.plotting import save
from sak.research.ablation.ablate import AblationRunner
from sak.research.ablation.variants import Ablation
from sak.research.reproduction.figures import bias_figure, efficiency_figure
from sak.research.reproduction.report import markdown
from sak.research.reproduction.results import Results
from sak.research.reproduction.study import NO_TEACHERS, SAK, SINGLE, variants

ALWAYS = ("stages.multitask.evaluate_every=null", "stages.multitask.keep_best=null", "data.crop_by_semseg=true")
QUICK = 10  # times fewer steps


class Reproduction(AblationRunner):
    """Runs what is missing, and writes the page."""

    what = "reproduction"

    def __init__(self, ablation: Ablation, jobs: int, train: Sequence[str], fill: Sequence[str], command: str):
        super().__init__(ablation, (), jobs, train, fill)
        self.command = command
        self.file = ablation.output / "results.md"

    def report_so_far(self) -> None:
        self.report({})

    def report(self, failed: dict[str, str]) -> None:
        students: dict[str, dict[int, Metrics]] = {}
        seconds: dict[str, list[float]] = {}
        for variant in self.ablation.variants:
            name, alone = variant.name, variant.name.removeprefix(SINGLE)
            students[name], training = self.measured(name, [alone] if alone in self.tasks else list(self.tasks))
            seconds[name] = list(training.values())
        results = Results(self.tasks, students)
        pictures = {}
        for caption, name, figure in (
            ("Gains by task", "bias.png", bias_figure(results)),
            ("Δm over the share of labels", "efficiency.png", efficiency_figure(results)),
        ):
            if figure is not None:
                save(figure, self.output / name)
                pictures[caption] = name
        if routing := self._routing():
            shutil.copyfile(routing, self.output / "routing.png")
            pictures["Mean weights of SAK's routers over validation images, first seed"] = "routing.png"
        page = markdown(results, self.parameters, seconds, failed, self._facts(), pictures)
        write_json(self.output / "results.json", results.students)
        write_text(self.file, f"# {self.ablation.config.name}: the paper's claims\n\n{page}\n")
        print(page)

    def _routing(self) -> Path | None:
        """The newest picture of the router weights of SAK's first finished run."""
        finished = [run.directory for run in self.ablation.of(SAK) if run.directory.finished]
        return max(finished[0].routing.glob("*.png"), default=None) if finished else None

    def _facts(self) -> str:
        steps = self.steps[SAK]
        said = " + ".join(f"{count} of {stage}" for stage, count in steps.items())
        facts = f"`{self.command}` on {processor()}, {cores()} cores, {self.jobs} runs at a time. SAK: {said} steps; "
        if NO_TEACHERS in self.steps:
            matched = self.steps[NO_TEACHERS]["multitask"]
            facts += f"a student without teachers gets {matched} of multitask, which cost as many operations, "
        return f"{facts}those of one task and the heads on frozen teachers get {sum(steps.values())}."


def reproduction(
    path: str,
    overrides: Sequence[str],
    seeds: Sequence[int],
    output: str | None,
    quick: bool = False,
    factors: Sequence[str] | None = None,
    own: Sequence[str] = (),
) -> Ablation:
    """The runs that are compared.

    Args:
        seeds: of the headline students; the others get the first `study.FEW`.
        quick: a tenth of the steps, to see that all of it works.
        factors: of the students beside SAK those that differ from it in one of these; None: all.
        own: overrides of the students without teachers.

    Raises:
        UserError: the config is wrong, or has nothing to compare, or no student differs in such a factor.
    """
    config = configuration.load(path, overrides)
    if len(config.teachers) < 2 or len(config.data.tasks) < 2:
        raise UserError(f"{path} has too little to compare: it needs two teachers and two tasks, or more")
    given = [*overrides, *ALWAYS]
    if quick:
        for name in ("distill", "multitask"):
            steps = config.stages[name].steps
            if steps is None:
                raise UserError(f"--quick takes a tenth of the steps, but stages.{name} has epochs: give it steps")
            given.append(f"stages.{name}.steps={max(1, steps // QUICK)}")
    place = output or str(Path(config.output) / f"{config.name}-reproduction{'-quick' * quick}")
    students = variants(path, given, own)
    known = list(dict.fromkeys(student.factor for student in students))
    if wrong := [factor for factor in factors or () if factor not in known]:
        raise UserError(f"--factors: no student differs from SAK in {wrong[0]!r}; choose of {', '.join(known)}")
    chosen = [student for student in students if factors is None or student.factor in factors]
    return Ablation(path, given, chosen, seeds, SAK, place)

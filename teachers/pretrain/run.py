"""Train one miniature, export its weights, and measure them."""

import dataclasses
from pathlib import Path
from typing import cast

import torch

import teachers
from sak.errors import UserError
from teachers.base import RANDOM, TeacherSpec, unknown
from teachers.pretrain import card, data, evaluation, measures
from teachers.pretrain.acceptance import shortfalls
from teachers.pretrain.contrastive import Contrastive
from teachers.pretrain.loop import Objective, Run, read_checkpoint
from teachers.pretrain.miniatures import MINIATURES
from teachers.pretrain.promptable import Promptable
from teachers.pretrain.recipes import RECIPES
from teachers.pretrain.supervised import Supervised, specification
from teachers.weights import save

NAMES = tuple(RECIPES)


@dataclasses.dataclass(frozen=True)
class Options:
    """How a miniature is trained.

    Attributes:
        data: an archive with unlabelled scenes to learn from; its labelled splits serve the measuring.
        output: gets weights, card and figure.
        work: gets the checkpoint and TensorBoard's events.
        command: what the card says it was made with.
        steps, batch_size: of the whole training and of its first phase's steps; None: the recipe's.
        start: the checkpoint of an earlier run to go on from, with its heads, towers and optimizer.
        width: of the vit's tokens, for smaller and larger ones that are trained alike; None: the miniature's.
        export: train no further, but export what the checkpoint holds.
        compile: compile the transformer's blocks; a run that began with it goes on with it.
    """

    data: str | Path
    output: str | Path
    work: str | Path
    command: str
    steps: int | None = None
    batch_size: int | None = None
    start: str | Path | None = None
    width: int | None = None
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    compile: bool = False
    export: bool = False


def pretrain(name: str, options: Options) -> list[str]:
    """Train the miniature `name`; write weights, card and figure, and while it goes on the checkpoint.

    Starting again continues from the checkpoint; after the last step it exports and measures anew.

    Returns:
        what it does not know that it should (`acceptance`), a sentence each.

    Raises:
        UserError: there is no such miniature or device, it has one width, its phases need more steps, or the archive or
            a file is incomplete.
    """
    if name not in RECIPES:
        raise UserError(unknown("miniature", name, RECIPES))
    if options.width is not None and name != "vit":
        raise UserError(f"the miniature {name} has one width; leave the width out, or train the vit.")
    recipe, spec = RECIPES[name], specification(options.width) if name == "vit" else MINIATURES[name]
    if options.steps is not None and options.steps < len(recipe.phases):
        raise UserError(
            f"--steps is {options.steps}, but {name} learns in {len(recipe.phases)} phases, of a step or more each."
        )
    checkpoint = Path(options.work) / f"{name}.pt"
    if options.export and not checkpoint.is_file():
        raise UserError(f"there is no checkpoint {checkpoint} to export; train first, or correct --work.")
    if options.start is not None and not Path(options.start).is_file():
        raise UserError(f"there is no checkpoint {options.start} to go on from; correct --init.")
    start = None if options.start is None else Path(options.start)
    if start is not None:
        read_checkpoint(start)  # what is none is told before the scenes are read, which takes a minute
    device = device_of(options.device)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    scenes = data.load_unlabelled(options.data).to(device)
    objective = recipe.objective(scenes) if options.width is None else Supervised(scenes, options.width)
    if options.compile:
        for block in objective.blocks():
            block.compile(dynamic=False)
    recipe = recipe.scaled(options.steps, options.batch_size)
    panel = measures.Panel(*(data.load(options.data, split) for split in ("train", "val")))

    def watch() -> dict[str, float]:
        return panel.image(built(name, spec, objective, checkpoint.parent))

    run = Run(objective, recipe.phases, checkpoint, options.seed, start, watch, hardware(options))
    if not options.export:
        run.train()
    return measure(name, spec, options, run, panel)


def device_of(name: str) -> torch.device:
    """
    Raises:
        UserError: this machine has no such device.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except Exception as error:  # each backend raises its own kind
        raise UserError(f"--device {name} cannot be used here ({str(error).splitlines()[0]}); try cpu.") from error
    return device


def built(name: str, spec: TeacherSpec, objective: Objective, output: Path) -> teachers.Teacher:
    """Write the weights that the family loads, in half precision, and load them as it does."""

    def build(weights: str) -> teachers.Teacher:
        return cast(teachers.Teacher, teachers.build(name, dataclasses.replace(spec, weights=weights)))  # of one scale

    state = {key: value.detach().half().cpu().contiguous() for key, value in objective.exported().items()}
    file = output / f"{name}.safetensors"
    teacher = build(RANDOM)  # tells what the file notes of the network
    save(file, state, teacher.backbone, teacher.mean.flatten().tolist(), teacher.std.flatten().tolist())
    return build(str(file)).to(objective.device)


def measure(name: str, spec: TeacherSpec, options: Options, run: Run, panel: measures.Panel) -> list[str]:
    """Export the weights and write their card; returns what they do not know that they should."""
    objective, output = run.objective, Path(options.output)
    (train, val), teacher = panel.scenes, built(name, spec, objective, output)
    ours, pixels = panel.of_teacher(teacher), panel.of_pixels()
    if isinstance(objective, Contrastive):
        taught = evaluation.contrastive(objective, train, val)
    elif isinstance(objective, Promptable):
        taught = evaluation.promptable(objective, train, val)
    elif isinstance(objective, Supervised):
        taught = evaluation.supervised(objective, train, val)
    else:
        taught = evaluation.self_distillation(teacher, panel, ours, pixels)
    progress = run.progress
    values = sum(value.numel() for value in objective.exported().values())
    where = ", then ".join(progress.hardware)
    phases = ", ".join(f"{phase.steps} of {phase.batch_size} images ({phase.name})" for phase in run.phases)
    made = {
        "weights": f"{values / 1e6:.2f} M values in half precision",
        "training data": f"{len(objective.scenes)} rendered scenes",
        "training": f"{progress.steps} of {run.steps} steps: {phases}; seed {options.seed}",
        "duration": f"{progress.seconds / 3600:.1f} hours, started {progress.starts} time(s), on {where}",
    }
    card.write(output, name, options.command, made, taught, ours, pixels)
    answers = {question: (ours[question], pixels[question]) for question in pixels}
    return shortfalls(name, answers | taught.rows, (ours[measures.MIDDLE], ours["semseg, linear mIoU"]))


def hardware(options: Options) -> str:
    if options.device == "cpu":
        return f"{options.threads} CPU thread(s)"
    return torch.cuda.get_device_name() if options.device.startswith("cuda") else options.device

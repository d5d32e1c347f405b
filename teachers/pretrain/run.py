"""Train one miniature, export its weights, and measure them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

import teachers
from sak.errors import UserError
from teachers.base import RANDOM, unknown
from teachers.pretrain import card, data, evaluation
from teachers.pretrain.contrastive import Contrastive
from teachers.pretrain.loop import Objective, fit
from teachers.pretrain.miniatures import MINIATURES
from teachers.pretrain.promptable import Promptable
from teachers.pretrain.self_distillation import SelfDistillation
from teachers.pretrain.supervised import Supervised, specification
from teachers.weights import read, save


@dataclasses.dataclass
class Recipe:
    objective: type[Objective]
    steps: int
    batch_size: int
    learning_rate: float


RECIPES = {
    "dinov2": Recipe(SelfDistillation, steps=3600, batch_size=32, learning_rate=1e-3),
    "clip": Recipe(Contrastive, steps=1300, batch_size=128, learning_rate=1e-3),
    "sam": Recipe(Promptable, steps=1500, batch_size=32, learning_rate=1e-3),
    "vit": Recipe(Supervised, steps=1200, batch_size=64, learning_rate=1e-3),
}


def pretrain(
    name: str,
    roots: Sequence[str | Path],
    output: str | Path,
    work: str | Path,
    command: str,
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    init: str | Path | None = None,
    width: int | None = None,
    seed: int = 0,
    threads: int = 1,
) -> None:
    """Train the miniature `name`; write weights, card and figure to `output`, and the checkpoint to `work`.

    Starting again continues from the checkpoint; after the last step it exports and measures anew.

    Args:
        roots: archives whose train splits are learnt from; the first one's splits serve the measuring.
        command: what the card says it was made with.
        steps, batch_size, learning_rate: None for the recipe's.
        init: a weights file of this miniature to go on from.
        width: of the vit's tokens, for smaller and larger ones that are trained alike; None: the miniature's.

    Raises:
        UserError: there is no such miniature, it has one width, or an archive or a file is incomplete.
    """
    if name not in RECIPES:
        raise UserError(unknown("miniature", name, RECIPES))
    if width is not None and name != "vit":
        raise UserError(f"the miniature {name} has one width; leave the width out, or train the vit.")
    spec = specification(width) if name == "vit" else MINIATURES[name]
    recipe, output = RECIPES[name], Path(output)
    steps = recipe.steps if steps is None else steps
    batch_size = recipe.batch_size if batch_size is None else batch_size
    learning_rate = recipe.learning_rate if learning_rate is None else learning_rate
    if init is not None and not Path(init).is_file():
        raise UserError(f"there is no weights file {init} to go on from; correct --init.")
    weights = None if init is None else read(Path(init), name)
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    scenes = [data.load(root, "train") for root in roots]
    train, val = scenes[0], data.load(roots[0], "val")
    options = {} if width is None else {"width": width}
    objective = recipe.objective(data.join(scenes), batch_size, **options)
    if weights is not None:
        try:
            objective.start_from(weights)
        except RuntimeError as error:  # of torch: names or shapes
            raise UserError(f"{init} does not fit the miniature {name}; give weights of it as --init.") from error
    seconds, starts = fit(objective, steps, learning_rate, Path(work) / f"{name}.pt", seed)

    exported = output / f"{name}.safetensors"
    state = {key: value.detach().half().contiguous() for key, value in objective.exported().items()}
    # What the file notes of the network is told by the teacher that its spec describes.
    teacher = cast(teachers.Teacher, teachers.build(name, dataclasses.replace(spec, weights=RANDOM)))
    save(exported, state, teacher.backbone, teacher.mean.flatten().tolist(), teacher.std.flatten().tolist())
    if isinstance(objective, SelfDistillation):
        measured = evaluation.self_distillation(str(exported), train, val)
    elif isinstance(objective, Contrastive):
        measured = evaluation.contrastive(objective, val)
    elif isinstance(objective, Promptable):
        measured = evaluation.promptable(objective, train, val)
    elif isinstance(objective, Supervised):
        measured = evaluation.supervised(objective, val)
    made = {
        "weights": f"{sum(value.numel() for value in state.values()) / 1e6:.2f} M values in half precision",
        "training data": f"{len(objective.scenes)} rendered scenes",
        "training": f"{steps} steps of {batch_size} images, seed {seed}, started {starts} time(s)",
        "duration": f"{seconds / 60:.0f} minutes with {threads} CPU thread(s)",
    }
    card.write(output, name, command, made, measured)

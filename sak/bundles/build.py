"""From a config to the parts of an experiment."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from omegaconf import DictConfig
from torch import nn
from tqdm import tqdm

from sak import data
from sak.adaptation import Adapted
from sak.bundles.adapted import build_adapted, describe_adapted
from sak.bundles.bundle import find_bundle, load_student
from sak.bundles.stem_weights import load_stem
from sak.bundles.tasks import records
from sak.config.derived import CHANGES, distils, image_size, left_out, model_spec, unlabelled
from sak.config.schema import STAGES, DataConfig, plain
from sak.data.archive import Archive
from sak.data.discovery import told
from sak.data.images import CentreCrops, Images, find_images
from sak.errors import UserError, printable
from sak.files import read_json
from sak.student import Student
from sak.student.hub import CONFIG, asked_only_if_reachable
from sak.tasks import Task
from teachers import Committee


def build_tasks(settings: DataConfig | DictConfig) -> dict[str, Task]:
    """The tasks of a data set that a config names, in its order.

    Raises:
        UserError: it names none, or the data set has no labels for one.
    """
    if not settings.tasks:
        raise UserError("data.tasks is empty, but this needs labels: name tasks, and the data set that has them")
    description = data.kind_of(settings).DESCRIPTION
    chosen = [description.build(entry) for entry in settings.tasks]
    return {task.name: task for task in chosen}


def build_committee(config: DictConfig, names: Sequence[str] | None = None) -> Committee:
    """The config's teachers, all of them or those that are named."""
    chosen = list(config.teachers if names is None else names)
    check_model_names(chosen)
    return Committee({name: model_spec(config, name) for name in chosen})


def check_model_names(names: Iterable[str]) -> None:
    """
    Raises:
        UserError: one cannot be that of a part of a network.
    """
    if taken := [name for name in names if hasattr(nn.ModuleDict, name)]:
        raise UserError(f"a teacher has the name {taken[0]!r}, which torch has for something else: choose another one")


def widths_of(config: DictConfig) -> dict[str, list[int]] | None:
    """{teacher: its width at each level} of the student that a config starts from, where no teacher is asked for it.

    None where the teachers themselves have to tell.

    Raises:
        UserError: there is no such student, or the config names other teachers.
    """
    if config.student.weights is None or any(distils(config, stage) for stage in STAGES):
        return None
    try:
        place = find_bundle(config.student.weights)
        widths = {name: list(dims) for name, dims in dict(read_json(place / CONFIG, ["teachers"])["teachers"]).items()}
    except (ValueError, TypeError) as error:  # of whatever else stands there
        raise UserError(f"student.weights: {error}") from error
    if config.teachers and list(config.teachers) != list(widths):
        raise UserError(
            f"student.weights: {place} has the teachers {list(widths)}, but the config {list(config.teachers)}: "
            "name the same, or none"
        )
    return widths


def build_labelled(config: DictConfig) -> Archive:
    """The labelled training images, augmented as the second stage has it."""
    return data.build(config.data, "train", config.stages.multitask.augment, config.seed)


def build_training_set(
    config: DictConfig, stage: str, labelled: Callable[[], Archive], say: Callable[[str], None] = tqdm.write
) -> Archive | Images:
    """The images that a stage trains on.

    Args:
        labelled: gives what `build_labelled` gives, so that its files are listed once for both stages.
        say: is told what lies beside the images and is left out.
    """
    if stage != "distill":
        share = config.stages.multitask.labelled
        return labelled() if share == 1 else labelled().part(share, config.seed)
    settings = config.stages.distill
    size, scale = image_size(config, stage), tuple(settings.crop_scale)
    if not settings.images:
        return Images(labelled().image_files, size, config.seed, scale, upright=False)
    files = find_images(settings.images)
    if files.left_out:
        say(f"{printable(settings.images)}: {len(files):,} images; {told(files.left_out)}")
    return Images(files, size, config.seed, scale)


def build_pictures(config: DictConfig, split: str) -> Archive | CentreCrops:
    """Images to look at, without labels: of the data set's split, or every other unlabelled one where that is all.

    Raises:
        UserError: they are not there.
    """
    if not unlabelled(config):
        data.prepare(config.data)
        return data.build(config.data, split, tasks=())
    files = find_images(config.stages.distill.images)
    chosen = range(len(files))[data.SPLITS.index(split) :: len(data.SPLITS)]
    return CentreCrops([files[index] for index in chosen], image_size(config, "distill"))


def build_student(config: DictConfig, chosen: Mapping[str, Task], teachers: Mapping[str, Sequence[int]]) -> Student:
    """A student with random weights, for images of the size of the first stage that it goes through; or what the
    config's ``stages.multitask.method`` has in its place.

    Each part's weights depend on the config's seed and the part alone, so that students of one seed with other
    teachers or tasks share the start of what they have in common.

    Args:
        chosen: the tasks that it gets heads for.
        teachers: {teacher: its width at each level}.

    Raises:
        UserError: the parts of the config do not fit together.
    """
    options = plain(config.student)
    head, heads = options.pop("head"), options.pop("heads")
    activation_checkpointing = options.pop("activation_checkpointing")
    # `start_from_weights` and `sak.bundles.change` see to these.
    starts = ("pretrained", "stem_weights", "weights", "path", "trained_beside")
    for key in (*starts, *(f"{what}_teacher" for what in CHANGES)):
        del options[key]
    if strangers := sorted(heads.keys() - {*chosen, *config.data.tasks}):
        raise UserError(f"student.heads names {strangers[0]!r}, which is not among data.tasks")
    # Weights from a run of the first stage have its image size, and are drawn and resized as in a run of both stages.
    distilled = not left_out(config.stages.distill) or config.student.weights is not None
    torch.manual_seed(config.seed)
    if config.stages.multitask.method is not None:
        adapted = build_adapted(config, chosen, {name: heads.get(name, head) for name in chosen})
        adapted.activation_checkpointing = activation_checkpointing
        return adapted
    try:
        student = Student(
            **options,
            image_size=list(image_size(config, "distill" if distilled else "multitask")),
            tasks={name: task.channels for name, task in chosen.items()},
            teachers=teachers,
            heads={name: heads.get(name, head) for name in chosen},
            descriptions=records(chosen),
        )
    except ValueError as error:
        raise UserError(f"student: {error}") from error
    if student.paths and config.student.paths == "adapter" and student.stem.width < config.student.adapter_ratio:
        raise UserError(
            f"student.adapter_ratio is {config.student.adapter_ratio}, but must not be above the stem's width "
            f"{student.stem.width}, which it divides"
        )
    student.activation_checkpointing = activation_checkpointing
    if chosen and config.stages.multitask.balance and not student.routers:
        raise UserError(
            f"stages.multitask.balance is {config.stages.multitask.balance}, but there are no weights to balance "
            f"(student.router is {config.student.router}, the sources are {', '.join(student.sources)}): set it to 0"
        )
    if config.student.aligner is False and any(distils(config, stage) for stage in STAGES):
        for name, dims in teachers.items():
            if config.student.paths == "none" or set(dims) != {student.stem.width}:
                raise UserError(
                    f"student.aligner is false, but {name} can only be distilled through aligners: set it to null, "
                    "or leave out the distillation (stages.distill.steps=0 stages.multitask.alpha=0)"
                )
    return student


def start_from_weights(student: Student, config: DictConfig) -> str:
    """Load what the config's ``student.weights``, or else ``stem_weights``, or else ``pretrained``, asks for.

    Returns:
        which parts of the student have got weights, and which keep their random start.

    Raises:
        UserError: the weights cannot be had, or do not fit.
    """
    if isinstance(student, Adapted):
        return describe_adapted(student)
    fresh: list[str] = []
    if config.student.weights is not None:
        fresh = load_distilled(student, config.student.weights, drop_aligners=config.student.aligner is False)
        loaded, source = DISTILLED, config.student.weights
    elif config.student.stem_weights is not None:
        file = load_stem(student.stem, config.student.stem_weights)
        loaded, source = ("stem",), str(file)
    elif config.student.pretrained:
        _load_pretrained_stem(student, config.student.stem)
        loaded, source = ("stem",), f"timm's {config.student.stem}"
    else:
        loaded, source = (), ""
    parts = {name: part for name, part in student.named_children() if any(True for _ in part.parameters())}
    new = ", ".join([name for name in parts if name not in loaded] + [f"the aligners of {name}" for name in fresh])
    known = ", ".join(name for name in parts if name in loaded)
    return "; ".join(filter(None, [known and f"{known} from {source}", new and f"{new} from random weights"]))


DISTILLED = ("stem", "paths")


def load_distilled(student: Student, path: str, drop_aligners: bool = False) -> list[str]:
    """Give a student the stem and the paths of a trained one, strictly; heads and routers are left as they are.

    The stem's position embedding is resized to the student's image size.

    Args:
        path: a run directory or a bundle.
        drop_aligners: leave out the aligners that it has, for a student without any.

    Returns:
        the teachers whose aligners keep their random start, as the trained student has none at all.

    Raises:
        UserError: there is no bundle, or its stem, levels, teachers, paths or aligners differ from the student's.
    """
    try:
        bundle = find_bundle(path)
        source = load_student(bundle)
    except UserError as error:
        raise UserError(f"student.weights: {error}") from error

    def require(theirs: object, ours: object, what: str, advice: str = "") -> None:
        if theirs != ours:
            raise UserError(f"student.weights: {bundle} has {what} {theirs}, but this student {ours}{advice}")

    require(list(source.levels), list(student.levels), "the levels")
    require(list(source.paths), list(student.paths), "the teachers")
    require(source.stem.patch_size, student.stem.patch_size, "the patch size")
    attention = [part.stem.vit.get_submodule("blocks.0.attn") for part in (source, student)]
    require(attention[0].num_heads, attention[1].num_heads, "attention heads:")
    if source.settings["paths"] == student.settings["paths"] == "adapter":
        require(source.settings["path_norm"], student.settings["path_norm"], "student.path_norm:")
    source.set_image_size(student.stem.image_size)
    if drop_aligners:
        source.drop_aligners()
    ours, theirs = aligned_teachers(student), aligned_teachers(source)
    fresh = ours if not theirs else []  # of a finished student, whose aligners are gone
    if not fresh:
        require(theirs, ours, "aligners for")
    for part in DISTILLED:
        known, state = getattr(source, part).state_dict(), getattr(student, part).state_dict()
        known |= {key: state[key] for key in state if fresh and part == "paths" and ".aligners." in key}
        for key in sorted(known.keys() | state.keys()):
            was, wanted = (tuple(weights[key].shape) if key in weights else None for weights in (known, state))
            require(was, wanted, f"{part}.{key} of shape")
        getattr(student, part).load_state_dict(known, strict=True)
    return fresh


def aligned_teachers(student: Student) -> list[str]:
    """The teachers whose paths have aligners."""
    return [name for name in student.paths if any(isinstance(part, nn.Linear) for part in student.path(name).aligners)]


def _load_pretrained_stem(student: Student, name: str) -> None:
    try:
        with asked_only_if_reachable():
            student.stem.load_pretrained()
    except Exception as error:  # the hub's client raises many kinds
        raise UserError(
            f"the pretrained weights of the stem {name} are neither cached nor to be downloaded "
            f"({str(error).splitlines()[0]}); fetch them once where there is a connection, "
            "or set student.pretrained=false to start from random weights"
        ) from error

"""The schema of an experiment's configuration, with its defaults.

`sak.config.loading` reads configs; `sak.config.checks` has the rules that types alone cannot say, and
`sak.config.derived` what a config asks for by several keys at once. What is read is a DictConfig with the keys and
defaults of `Config`; a part of it, as ``config.data``, is one of that part's dataclass.
"""

from dataclasses import dataclass, field
from typing import Any, cast

from omegaconf import MISSING, DictConfig, OmegaConf

from sak.config.steps import OptimConfig, StepsConfig
from sak.config.vocabulary import VocabularyConfig, VocabularyStageConfig

STAGES = ("distill", "multitask")  # of a student, in the order of training
VOCABULARY = "vocabulary"  # the stage of a vision vocabulary, which is trained by itself (docs/vocabulary.md)
ORDER = (*STAGES, VOCABULARY)  # of all stages

# What the keys of these names can be; `sak.distillation` and `sak.training` have what each does, under the same names.
LOSSES = ("cos+l1", "cos", "l2", "token_cos+l1", "token_cos")
STANDARDISATIONS = ("none", "phi_s", "ema")
TASK_BALANCES = ("none", "uncertainty", "gradnorm")
AUTO = "auto"
PRECISIONS = (AUTO, "fp32", "bf16", "fp16")
FROZEN = ("linear", "losa")  # methods that leave their backbone as it is
METHODS = (*FROZEN, "lora", "adapter", "bitfit", "full")

# Keys that say where something lies, which may be written in many ways, and not what it is.
LOCATIONS = (
    "output", "data.root", "student.weights", "student.stem_weights", "student.path", "stages.distill.images",
    "cache.path", "vocabulary.data.root", "vocabulary.network.weights", "vocabulary.branch.student",
    "vocabulary.weights",
)  # fmt: skip


@dataclass
class RendererConfig:
    """Of the data set ``mini_context``, which is rendered on first use."""

    train: int = 1200
    val: int = 600
    seed: int = 0
    unlabelled: int = 0  # further scenes, images alone: what the first stage learns from if no other images are named
    positives: bool = False  # these once more in other colours and light: for the pretraining of miniature teachers


@dataclass
class LabelConfig:
    """Where the labels of one task lie in own data, and what their stored numbers mean (docs/own_data.md)."""

    path: str | None = None  # as a/{split}/{name}_b.png; null: TASK/{split}/{name}, with any suffix that labels have
    values: list[int] | None = None  # the stored number of each class, in their order; null: 0, 1, 2, ...
    ignore: list[int] | None = None  # stored numbers of pixels that are ignored; null: 255, unless it is a class's
    reduce_zero_label: bool = False  # 0 is ignored, and the classes are 1, 2, 3, ...
    scale: float | None = None  # so many stored numbers make one unit: 1000 of depth in millimetres
    max_dist: float | None = None  # of boundaries: how far a match may be, as a share of the image's diagonal


@dataclass
class DataConfig:
    # mini_context, pascal_context, nyud; folders (docs/own_data.md); or package.module:Class, an Archive of your own
    dataset: str = MISSING
    root: str = MISSING
    image_size: list[int] = MISSING  # H, W
    tasks: list[str] = MISSING  # names, or package.module:Class for tasks of your own
    # Of own data alone, from here to `splits`; {split} and {name} stand for those of an image
    classes: dict[str, list[str]] = field(default_factory=dict)  # {task: names}; else they stand in classes.txt
    colours: dict[str, list[list[int]]] = field(default_factory=dict)  # {task: [red, green, blue] of each class}
    images: str | None = None  # null: images/{split}/{name}, with any suffix that images have
    labels: dict[str, LabelConfig] = field(default_factory=dict)  # of each task
    lists: str | None = None  # of the names, as lists/{split}.txt; null: all images that are there
    splits: dict[str, str] = field(default_factory=dict)  # what {split} is, as {train: training, val: validation}
    workers: int = 2  # processes that load data
    timeout: int = 600  # seconds until a batch that does not come from them is given up
    on_error: str = "stop"  # at an image whose files are missing or corrupt; or skip (docs/resuming.md)
    max_skipped: float = 0.001  # share of the images that may be skipped
    # Whether the crop of training avoids windows of one class also where semseg is no task, by reading it for the crop
    # alone; false as published (docs/recipes.md)
    crop_by_semseg: bool = False
    scale: list[float] = field(default_factory=lambda: [0.5, 2.0])  # range of the random scale of training
    edges_after_scaling: bool = False  # draw the boundaries of training when the image is scaled; false as published
    # Normals whose length is farther than this from 1 are ignored, in training and evaluation; null: none, as published
    normals_tolerance: float | None = None
    renderer: RendererConfig = field(default_factory=RendererConfig)


@dataclass
class HeadConfig:
    type: str = "sak"  # the paper's, or mmseg.NAME for one of mmsegmentation's
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class StudentConfig:
    stem: str = MISSING  # a timm vision transformer
    pretrained: bool = False  # start from timm's weights of the stem
    stem_weights: str | None = None  # a file with the weights that the stem starts from instead
    weights: str | None = None  # start from stem and paths of a run or bundle instead; routers and heads stay new
    stem_options: dict[str, Any] = field(default_factory=dict)
    levels: list[int] = field(default_factory=lambda: [2, 5, 8, 11])
    paths: str = "adapter"  # or none: teachers are distilled straight from the stem, which alone the heads read
    adapter_ratio: int = 4
    path_norm: bool = True  # a LayerNorm at each level of each path, as published; false keeps the tokens' lengths
    aligner: bool | None = None  # null: where widths differ
    router: str = "mor"  # the paper's; or token, token_topk, equal, sum (docs/routers_and_losses.md)
    noisy_gating: bool = True
    activation_checkpointing: bool = False  # compute activations twice instead of keeping them: less memory, more time
    head: HeadConfig = field(default_factory=HeadConfig)  # of every task ...
    heads: dict[str, HeadConfig] = field(default_factory=dict)  # ... that is not named here
    router_temperature: float = 1.0  # below 1 the weights are sharper
    router_top_k: int = 2  # sources that a token keeps, of token_topk
    # Changes of the trained student at `weights`, which keeps all else (docs/paths.md): at most one of
    add_teacher: str | None = None  # a teacher of `teachers`, for which it gets a path
    update_teacher: str | None = None  # one whose path is distilled again
    remove_teacher: str | None = None  # one whose path it loses
    path: str | None = None  # a file that the added or updated path starts from; null: at random, or as it is
    # What learns in the second stage beside the path: routers, heads; null: both if a teacher is added, else neither
    trained_beside: list[str] | None = None


@dataclass
class TeacherSpec:
    """One teacher, as a config describes it.

    Attributes:
        family: a key of `teachers.FAMILIES`, or `package.module:Class` for a subclass of `Teacher` of your own.
        model: the architecture's name in the family's library.
        weights: a local file (safetensors or a torch state dict); None: the published file, cached or downloaded;
            "random": untrained. A relative path is sought in the working directory, then beside this package.
        revision: branch, tag or commit of the hub's repository that holds the published file.
        levels: blocks (of a convolutional network: stages) whose outputs are the features, counted from 0, increasing.
        input_size: longer side in pixels of what the backbone sees; "native": the image's own size; None: the
            family's rule, which is "native", for SAM the size that its encoder was built for.
        fit: how an image gets to whole patches. "resize": to the nearest size of whole patches; "crop": what fills no
            patch on the right and below is left out, as in the published SAK code.
        interpolation: of the resizing, "bilinear" or "bicubic", as the published SAK code does it for SAM.
        input_stats: "own": pixels are normalised as in the teacher's own training; "imagenet": with ImageNet's mean
            and deviation for every teacher, as the published SAK code does.
        dtype: of the backbone's weights and activations, "float32" or "bfloat16"; features come out in float32.
        scales: more than [1] makes it an S2 teacher that sees the image at each of these scales, its maps concatenated
            on channels (`teachers.multiscale`).
        resize_to: the scale whose grid an S2 teacher's maps get, "first" or "last".
        options: of the architecture, by family.
    """

    family: str = MISSING
    model: str = MISSING
    weights: str | None = None
    revision: str | None = None
    levels: list[int] = field(default_factory=lambda: [2, 5, 8, 11])
    input_size: int | str | None = None
    fit: str = "resize"
    interpolation: str = "bilinear"
    input_stats: str = "own"
    dtype: str = "float32"
    scales: list[int] = field(default_factory=lambda: [1])
    resize_to: str = "first"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class StageConfig(StepsConfig):
    """Of a student's training."""

    loss: str = "cos+l1"  # of the distillation, one of LOSSES
    standardise: str = "none"  # the teachers' features: none, phi_s or ema (docs/routers_and_losses.md)
    standardise_images: int = 512  # that the statistics of phi_s are taken from
    teacher_dropping: float = 0.0  # probability, for each image, of all teachers but the one with the largest loss


@dataclass
class DistillConfig(StageConfig):
    # Unlabelled: a folder, a tar, or WebDataset shards as a folder or pattern (imagenet-{000000..000146}.tar); null:
    # the training images of the data set.
    images: str | None = None
    image_size: list[int] | None = None  # H, W; null: data.image_size
    crop_scale: list[float] = field(default_factory=lambda: [0.08, 1.0])  # share of the image in a random crop


@dataclass
class MultitaskConfig(StageConfig):
    alpha: float = 1.0  # weight of the distillation beside the task losses
    augment: bool = True
    labelled: float = 1.0  # share of the training images whose labels are used; `seed` draws which
    evaluate_every: int | None = None  # steps; null: at the end alone
    keep_best: str | None = None  # a metric, as semseg.miou: the best evaluated student is kept in student_best/
    balance: float = 0.0  # weight of the routers' balance terms
    task_balance: str = "none"  # weights of the task losses that are learned: none, uncertainty or gradnorm
    task_balance_lr: float = 0.01  # of these weights
    gradnorm_alpha: float = 1.5  # the larger, the more a task that learns slowly is preferred
    # Instead of the student, a pre-trained backbone under the same heads, used in one of the ways of METHODS
    # (docs/losa.md); null: the student
    method: str | None = None


@dataclass
class StagesConfig:
    distill: DistillConfig = field(default_factory=DistillConfig)
    multitask: MultitaskConfig = field(default_factory=MultitaskConfig)
    vocabulary: VocabularyStageConfig = field(default_factory=VocabularyStageConfig)  # instead of the other two


@dataclass
class AdaptationConfig:
    """Of ``stages.multitask.method``: what it adapts, and how much of it."""

    backbone: str | None = None  # a teacher of `teachers`, also one with scales, or one of the family student
    rank: int = 8  # of losa's and lora's matrices; inner width of adapters
    taps: list[int] | None = None  # of losa: blocks that its side network reads; null: the teacher's levels


@dataclass
class EvaluationConfig:
    """Of the evaluations of a run, and of ``tools/evaluate.py`` on it."""

    batch_size: int | None = None  # images at once on one device; null: as many as the second stage trains on at once


@dataclass
class CacheConfig:
    """Of the views that training sees, and of the teachers' features of them on disk (docs/cache.md)."""

    path: str | None = None  # directory that keeps features, for any number of experiments; null: none are kept
    views: int | None = None  # augmented views of each image, taken in turn by the epochs; null: new ones in each epoch
    dtype: str = "float16"  # or int8
    stages: list[str] = field(default_factory=lambda: ["distill"])  # that have views and features: distill, multitask


@dataclass
class ProbeConfig:
    """Of ``tools/probe_teachers.py``: the same small heads on each frozen teacher, one for each task."""

    extra: dict[str, TeacherSpec] = field(default_factory=dict)  # frozen models that are probed beside the teachers
    reference: str | None = None  # the teacher or extra model that the table compares with
    scales: list[int] | None = None  # probe each model at these scales too, as an S2 model
    steps: int = 4000  # of each head
    batch_size: int = 16
    log_every: int = 10  # steps
    width: int = 128  # of the head, behind a linear map of each level from the model's own width
    head: HeadConfig = field(default_factory=HeadConfig)
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=1e-3, weight_decay=0.01, schedule="cosine", warmup_steps=100)
    )
    keep_features: bool = False  # leave the extracted features on disk


@dataclass
class TrackingConfig:
    """What a run shows in TensorBoard beside losses, metrics, router weights and pictures."""

    histograms: bool = False  # of the router weights over the validation images, for each task, level and source


@dataclass
class Config:
    name: str = MISSING
    output: str = "runs"
    seed: int = 0
    precision: str = "fp32"  # or bf16, fp16; auto: bf16 where it is faster, else fp32; a run keeps what it began with
    compile: bool = False  # train through torch.compile
    distributed: str = "ddp"  # what several processes keep of the student: ddp, all of it; fsdp, each its share
    data: DataConfig = field(default_factory=DataConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    teachers: dict[str, TeacherSpec] = field(default_factory=dict)
    stages: StagesConfig = field(default_factory=StagesConfig)
    adaptation: AdaptationConfig = field(default_factory=AdaptationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)  # of stages.vocabulary alone
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def plain(settings: DictConfig) -> dict[str, Any]:
    """A config, or a part of one, as dicts, lists and values of Python's own."""
    return cast(dict[str, Any], OmegaConf.to_container(settings))


def teacher_spec(settings: DictConfig) -> TeacherSpec:
    """The dataclass of one of the config's teachers."""
    return cast(TeacherSpec, OmegaConf.to_object(settings))


def mixed_precision(precision: str) -> str:
    """As accelerate calls it; and as probes and caches on disk do, which are older than the name ``fp32``."""
    return "no" if precision == "fp32" else precision

"""What a config says of a vision vocabulary: its data, its networks and its training (docs/vocabulary.md)."""

from dataclasses import dataclass, field
from typing import Any

from sak.config.steps import OptimConfig, StepsConfig

KINDS = ("text", "detection", "expression", "chart", "pdf")  # of samples; `sak.vocabulary.data` makes them
# How a second branch stands beside the vocabulary, as `sak.vocabulary.vision` does it.
MERGES = ("none", "parallel", "serial")
STATISTICS = ("imagenet", "clip")  # what the vocabulary's pixels are normalised with


@dataclass
class PageConfig:
    """Of the rendered text pages; lengths are in pixels of the image."""

    texts: str | None = None  # a folder of .txt files; null: random words, numbers and codes
    lines: list[int] = field(default_factory=lambda: [1, 3])  # [least, most] on a page
    characters: list[int] = field(default_factory=lambda: [8, 14])  # [least, most] in a line, as far as they fit
    columns: int = 1  # a page has from 1 to so many, which are read one after the other
    font_size: list[int] = field(default_factory=lambda: [13, 17])  # [smallest, largest], as far as the lines fit
    fonts: list[str] | None = None  # files of fonts; null: those that Debian has where it has any, and DejaVu
    rotation: float = 1.5  # degrees, at most, either way
    noise: float = 0.03  # largest standard deviation of the pixels' noise, of white = 1
    moved: float = 1.0  # most by which text stands off the upper left, of the free room
    empty: float = 0.02  # share of the pages without text, to which the answer is empty


@dataclass
class VocabularyDataConfig:
    """Of the samples that a vision vocabulary is trained and evaluated on."""

    kinds: dict[str, float] = field(default_factory=dict)  # {one of KINDS: its share, of their sum}
    image_size: int = 128  # pixels, height = width; images of other shapes are resized to it, and never cropped
    train: int = 100_000  # samples of an epoch; what is rendered differs in each of them
    val: int = 400
    seed: int = 0
    # [from, to] samples of each kind of training: up to the first random lines have one or two characters and drawn
    # scenes one large thing, and they grow until the second. Who begins with more does not find out that images help.
    growth: list[int] = field(default_factory=lambda: [0, 0])
    pages: PageConfig = field(default_factory=PageConfig)
    # Where detection and expressions find objects: drawn (on the spot), mini_context, pascal_context, or a JSON file in
    # COCO's format, with {split} for what the splits are called in `splits`
    objects: str = "drawn"
    # The folder of mini_context (rendered there where there is none), of PASCAL-Context, or of a JSON file's images
    root: str | None = None
    splits: dict[str, str] = field(default_factory=dict)  # what {split} is in `objects`, as {train: train2017}
    things: int = 4  # at most, in a drawn scene
    scenes: int = 3000  # training images of mini_context where it is rendered; a quarter as many to validate
    least_object: float = 0.01  # share of the image below which an object is not asked for
    pdfs: str | None = None  # a folder of PDF files with a text layer


@dataclass
class NetworkConfig:
    """The vocabulary network: an image encoder of segment_anything, and convolutions of stride 2 behind its neck."""

    model: str = "vit_b"  # or vit_l, vit_h
    options: dict[str, Any] = field(default_factory=dict)  # of its ImageEncoderViT, as depth or embed_dim
    channels: list[int] = field(default_factory=lambda: [512, 1024])  # of each convolution
    statistics: str = "imagenet"  # or clip, as of the published Vary-toy
    # Start from a bundle or run of this stage, from published Vary weights, or from SAM's own, behind which the
    # convolutions are new
    weights: str | None = None
    frozen: bool = False


@dataclass
class BranchConfig:
    """The second branch, which is frozen: its levels' features, concatenated. Either of these two:"""

    teacher: str | None = None  # one of `teachers`, as the paper's CLIP-L
    student: str | None = None  # a student's run or bundle ...
    source: str = "stem"  # ... and which features of it: stem, those of a teacher's path, or those routed for a task


@dataclass
class LanguageModelConfig:
    """A causal language model of transformers."""

    model: str = "facebook/opt-125m"  # a name on the hub, a folder, or with options alone a kind, as opt or qwen2
    pretrained: bool = True  # its weights; false: random ones, and `model` is a kind
    options: dict[str, Any] = field(default_factory=dict)  # of its config
    # Train a byte-level tokenizer of so many tokens on prompts and answers, with one more for each fixed phrase of the
    # prompts and the template; null: the model's own.
    tokens: int | None = None


@dataclass
class VocabularyConfig:
    data: VocabularyDataConfig = field(default_factory=VocabularyDataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    merge: str = "none"  # a second branch: none, parallel (Vary-toy) or serial (DeepEncoder)
    branch: BranchConfig = field(default_factory=BranchConfig)
    language_model: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    weights: str | None = None  # start from a bundle or run of this stage, all of it
    context: int | None = None  # tokens of image, prompt and answer together; null: as many as the language model takes


@dataclass
class VocabularyStageConfig(StepsConfig):
    """The defaults are the paper's; it is left out unless a config asks for its steps, or, with steps: null, epochs."""

    steps: int | None = 0
    batch_size: int = 512
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=5e-5, weight_decay=0.0, schedule="cosine", warmup_steps=0)
    )
    evaluate_every: int | None = None  # steps; null: at the end alone
    evaluate_samples: int = 200  # of these evaluations; the last one takes all of val

"""What a config says of a vision vocabulary: its data, its networks and its training (docs/vocabulary.md)."""

from dataclasses import dataclass, field
from typing import Any

from sak.config.steps import OptimConfig, StepsConfig

# How a second branch stands beside the vocabulary, as `sak.vocabulary.vision` does it.
MERGES = ("none", "parallel", "serial")
STATISTICS = ("imagenet", "clip")  # what the vocabulary's pixels are normalised with


@dataclass
class VocabularyDataConfig:
    kinds: dict[str, float] = field(default_factory=dict)  # {kind of sample: its weight}
    image_size: list[int] = field(default_factory=lambda: [1024, 1024])  # H, W
    train: int = 10000  # samples
    val: int = 500
    root: str | None = None
    seed: int = 0


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
    tokens: int | None = None  # train a byte-level tokenizer of so many tokens on the answers; null: the model's own


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

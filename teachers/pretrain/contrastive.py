"""CLIP in miniature: images and their captions meet in one space (Radford et al., arXiv 2103.00020).

The model, the tokenizer and the loss are open_clip's own. Half of the patches are dropped for most of the training,
as in FLIP (Li et al., arXiv 2212.00794), which doubles the speed.

Legend: B pairs, C tokens of a caption, E width of the common space.
"""

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from teachers.pretrain import data
from teachers.pretrain.loop import Objective
from teachers.pretrain.miniatures import IMAGE_SIZE, MINIATURES

TEXT = {"context_length": 77, "width": 128, "heads": 4, "layers": 4}
PATCH_DROPOUT, WHOLE_IMAGES_FROM = 0.5, 0.85
MAX_LOGIT_SCALE = 100.0


class Contrastive(Objective):
    """The objective; `model` is open_clip's CLIP, whose image tower gets exported."""

    mean: Tensor
    std: Tensor

    def __init__(self, scenes: data.Scenes, batch_size: int):
        super().__init__(scenes, batch_size)
        self.tokenizer = SimpleTokenizer(context_length=TEXT["context_length"])
        vision = dict(MINIATURES["clip"].options, patch_dropout=PATCH_DROPOUT)
        embed_dim = vision.pop("embed_dim")
        self.tokens = self.tokenizer(scenes.captions)
        # no caption is longer, so that text attention need not run over padding
        self.context = int((self.tokens != 0).sum(1).max())
        text = {**TEXT, "context_length": self.context, "vocab_size": self.tokenizer.vocab_size}
        self.model = open_clip.CLIP(embed_dim, vision, text)
        self.criterion = open_clip.ClipLoss()
        self.register_buffer("mean", torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(open_clip.OPENAI_DATASET_STD).view(1, 3, 1, 1), persistent=False)

    def loss(self, progress: float, generator: torch.Generator) -> Tensor:
        """The symmetric contrastive loss of random pairs."""
        self.model.visual.patch_dropout.prob = PATCH_DROPOUT if progress < WHOLE_IMAGES_FROM else 0.0
        index = torch.randperm(len(self.scenes), generator=generator)[: self.batch_size]
        # large crops, for a caption names everything in the scene; mirrored ones, for none names left or right
        images = data.view(self.scenes.images[index], IMAGE_SIZE, (0.8, 1.0), generator)
        images = data.distort(images, generator, strength=0.15, blur=0.1)
        with torch.autocast("cpu", torch.bfloat16):
            image_features = self.model.encode_image((images - self.mean) / self.std, normalize=True)
            text_features = self.model.encode_text(self.tokens[index, : self.context], normalize=True)
        return self.criterion(image_features.float(), text_features.float(), self.model.logit_scale.exp())

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        self.model.logit_scale.clamp_(max=torch.tensor(MAX_LOGIT_SCALE).log())

    @torch.no_grad()
    def similarities(self, scenes: data.Scenes) -> Tensor:
        """(N,N) cosines of each image (rows) with each caption (columns)."""
        self.model.eval()
        images = (data.whole(scenes.images, IMAGE_SIZE) - self.mean) / self.std
        image_features = torch.cat([self.model.encode_image(part, normalize=True) for part in images.split(100)])
        text_features = self.model.encode_text(self.tokenizer(scenes.captions)[:, : self.context], normalize=True)
        self.model.train()
        return image_features @ text_features.T

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Go on from an image tower that was exported before."""
        self.model.visual.load_state_dict({key.removeprefix("visual."): value for key, value in weights.items()})

    def exported(self) -> dict[str, Tensor]:
        """The image tower's weights as open_clip's checkpoints name them."""
        return {f"visual.{key}": value for key, value in self.model.visual.state_dict().items()}

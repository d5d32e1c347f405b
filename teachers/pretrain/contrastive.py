"""CLIP in miniature: images and their captions meet in one space (Radford et al., arXiv 2103.00020).

The model, the tokenizer and the loss are open_clip's own. Three quarters of the patches are dropped for most of the
training, as in FLIP (Li et al., arXiv 2212.00794), which makes it many times as fast.

Legend: B pairs, C tokens of a caption, E width of the common space, N scenes.
"""

from collections.abc import Sequence

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from teachers.pretrain import views
from teachers.pretrain.data import Scenes
from teachers.pretrain.loop import Objective, Phase
from teachers.pretrain.miniatures import IMAGE_SIZE, MINIATURES

CONTEXT_LENGTH = 77
TEXT = {"width": 128, "heads": 4, "layers": 4}
DROPPED = {"few patches": 0.75, "all patches": 0.0}  # share of the patches
MAX_LOGIT_SCALE = 100.0


class Contrastive(Objective):
    """The objective; `model` is open_clip's CLIP, whose image tower gets exported."""

    mean: Tensor
    std: Tensor

    def __init__(self, scenes: Scenes):
        super().__init__(scenes)
        self.tokenizer = SimpleTokenizer(context_length=CONTEXT_LENGTH)
        vision = dict(MINIATURES["clip"].options, patch_dropout=0.5)
        embed_dim = vision.pop("embed_dim")
        tokens = self.tokenizer(scenes.captions)
        # no caption is longer, so that text attention need not run over padding
        self.context = int((tokens != 0).sum(1).max())
        self.tokens = tokens[:, : self.context].to(scenes.images.device)
        text = {**TEXT, "context_length": self.context, "vocab_size": self.tokenizer.vocab_size}
        self.model = open_clip.CLIP(embed_dim, vision, text)
        self.criterion = open_clip.ClipLoss()
        self.register_buffer("mean", torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(open_clip.OPENAI_DATASET_STD).view(1, 3, 1, 1), persistent=False)
        self.to(scenes.images.device)

    def losses(self, phase: Phase, generator: torch.Generator) -> dict[str, Tensor]:
        """The symmetric contrastive loss of random pairs."""
        self.model.visual.patch_dropout.prob = DROPPED[phase.name]
        index = torch.randperm(len(self.scenes), generator=generator)[: phase.batch_size]
        # large crops, for a caption names everything in the scene; mirrored ones, for none names left or right; the
        # colours that it names are kept
        seen = views.view(self.scenes.images[index], IMAGE_SIZE, (0.8, 1.0), generator)
        seen = views.distort(seen, generator, strength=0.15, blur=0.1)
        with self.autocast():
            image_features = self.model.encode_image((seen - self.mean) / self.std, normalize=True)
            text_features = self.model.encode_text(self.tokens[index], normalize=True)
        scale = self.model.logit_scale.exp()
        return {"contrast": self.criterion(image_features.float(), text_features.float(), scale)}

    @torch.no_grad()
    def after_step(self, phase: Phase, progress: float) -> None:
        self.model.logit_scale.clamp_(max=torch.tensor(MAX_LOGIT_SCALE).log().item())

    @torch.no_grad()
    def texts(self, scenes: Scenes) -> Tensor:
        """(N,E) unit vectors of the captions."""
        tokens = self.tokenizer(scenes.captions)[:, : self.context].to(self.device)
        return torch.cat([self.model.encode_text(part, normalize=True) for part in tokens.split(200)]).cpu()

    @torch.no_grad()
    def pictures(self, scenes: Scenes) -> Tensor:
        """(N,E) unit vectors of the images."""
        self.model.eval()
        parts = views.whole(scenes.images, IMAGE_SIZE).split(100)
        vectors = [self.model.encode_image((p.to(self.device) - self.mean) / self.std, normalize=True) for p in parts]
        self.model.train()
        return torch.cat(vectors).cpu()

    def blocks(self) -> Sequence[nn.Module]:
        return [self.model.visual.transformer]

    def exported(self) -> dict[str, Tensor]:
        """The image tower's weights as open_clip's checkpoints name them."""
        return {f"visual.{key}": value for key, value in self.model.visual.state_dict().items()}

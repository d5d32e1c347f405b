"""A small language model that reads images through a vision vocabulary (Vary, arXiv 2312.06109).

Legend: B batch, H,W image, N image tokens, E width of the language model, L text tokens behind the image. A sequence is

    USER: <img> [N image tokens] </img> prompt ASSISTANT: | answer </s>

and the loss is on what stands behind the bar alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TextStreamer

from sak.errors import UserError
from sak.student.interface import warned_of_range
from sak.vocabulary.bundle import VocabularyFiles
from sak.vocabulary.language_model import context_of
from sak.vocabulary.prompts import IMAGE_END, IMAGE_START, around_image
from sak.vocabulary.vision import Vision

IGNORED = -100  # where there is no loss


@dataclass
class VocabularyOutput:
    """
    Attributes:
        loss: mean over the answers' tokens, their ends included; a float32 scalar.
        cut: answers that were too long for the context, and lost their end.
        tokens: how many the loss is of.
    """

    loss: Tensor
    cut: int
    tokens: int


class VocabularyModel(VocabularyFiles):
    """``save_pretrained`` writes a bundle that ``from_pretrained`` reads.

    Args:
        vision: RGB images (B,3,H,W) in [0,1] -> (B,N,E).
        context: tokens of image, prompt and answer together; None: as many as the language model takes.

    Attributes:
        image_size: (H, W) of training.
        vision_tokens: N of such images.

    Raises:
        UserError: the context is larger than the language model's, or the tokenizer lacks the tokens around an image.
    """

    def __init__(
        self,
        vision: Vision,
        language_model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        context: int | None = None,
    ):
        super().__init__()
        self.vision, self.language_model, self.tokenizer = vision, language_model, tokenizer
        self.set_context(context)
        for mark in (IMAGE_START, IMAGE_END):
            if tokenizer.convert_tokens_to_ids(mark) in (None, tokenizer.unk_token_id):
                raise UserError(f"the tokenizer has no token {mark}, between which and its like an image stands")
        self.warned = False  # of images that are not in [0, 1]

    def set_context(self, context: int | None) -> None:
        """As of the argument of this name.

        Raises:
            UserError: the language model does not take as many tokens.
        """
        most = context_of(self.language_model)
        if context is not None and context > most:
            raise UserError(f"vocabulary.context is {context}, but the language model takes at most {most} tokens")
        self.context = most if context is None else context

    @property
    def image_size(self) -> tuple[int, int]:
        height, width = self.vision.network.settings["image_size"]
        return height, width

    @property
    def vision_tokens(self) -> int:
        rows, columns = self.vision.network.grid(*self.image_size)
        return rows * columns

    @property
    def device(self) -> torch.device:
        return self.vision.projection.weight.device

    def forward(self, images: Tensor, prompts: Sequence[str], answers: Sequence[str]) -> VocabularyOutput:
        """The loss of next tokens on the answers.

        Raises:
            UserError: the context has no room for image and prompt.
        """
        image_tokens = self._see(images)
        before = self._before()
        texts, labels, cut = [], [], 0
        for prompt, answer in zip(prompts, answers, strict=True):
            after, room = self._after(prompt, image_tokens.shape[1])
            told = [*self._ids(answer, marks=False), self.tokenizer.eos_token_id]
            if len(told) > room:
                told, cut = told[:room], cut + 1
            texts.append(torch.tensor([*after, *told]))
            labels.append(torch.tensor([IGNORED] * len(after) + told))
        pad = nn.utils.rnn.pad_sequence
        text = pad(texts, batch_first=True, padding_value=self.tokenizer.pad_token_id).to(images.device)
        target = pad(labels, batch_first=True, padding_value=IGNORED).to(images.device)  # (B,L)
        present = pad([torch.ones_like(each) for each in texts], batch_first=True).to(images.device)
        start = torch.tensor(before, device=images.device).expand(len(images), -1)
        sequence = torch.cat([self._embed(start), image_tokens, self._embed(text)], dim=1)
        seen = torch.cat([present.new_ones(sequence.shape[0], sequence.shape[1] - text.shape[1]), present], dim=1)
        # Logits are computed from the first token before an answer on: of the image there would be N times the
        # vocabulary's size.
        first = min(int((each != IGNORED).nonzero()[0]) for each in labels)
        kept = torch.arange(sequence.shape[1] - text.shape[1] + first - 1, sequence.shape[1] - 1, device=images.device)
        logits = self.language_model(
            inputs_embeds=sequence, attention_mask=seen, logits_to_keep=kept, use_cache=False
        ).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), target[:, first:].flatten(), ignore_index=IGNORED)
        return VocabularyOutput(loss, cut, sum(int((each != IGNORED).sum()) for each in labels))

    @torch.no_grad()
    def generate(
        self,
        images: Tensor,
        prompts: Sequence[str],
        beams: int = 1,
        max_new_tokens: int | None = None,
        stream: Callable[[str], None] | None = None,
        use_cache: bool = True,
    ) -> list[str]:
        """The answers, by greedy decoding or beam search.

        Args:
            images: (B,3,H,W) in [0,1].
            max_new_tokens: None: as many as the context has room for.
            stream: is given each piece of the text as it comes; of one image without beams.

        Raises:
            UserError: the context has no room for image and prompt, or several texts would come in one stream.
        """
        if stream and (len(images) > 1 or beams > 1):
            raise UserError("only the text of one image, and of one beam, can be shown while it is written")
        images = images.to(self.device)
        image_tokens = self._see(images)
        before = self._embed(torch.tensor(self._before(), device=images.device))
        sequences, rooms = [], []
        for prompt, of_image in zip(prompts, image_tokens, strict=True):
            after, room = self._after(prompt, len(of_image))
            embedded = self._embed(torch.tensor(after, device=images.device))
            sequences.append(torch.cat([before, of_image.to(before.dtype), embedded]))
            rooms.append(room)
        longest = max(map(len, sequences))
        # All end where the answers begin.
        padded = torch.stack([F.pad(each, (0, 0, longest - len(each), 0)) for each in sequences])
        seen = torch.stack([torch.arange(longest, device=images.device) >= longest - len(each) for each in sequences])
        written = cast(Any, self.language_model).generate(
            inputs_embeds=padded,
            attention_mask=seen.long(),
            max_new_tokens=min(rooms) if max_new_tokens is None else min(max_new_tokens, *rooms),
            num_beams=beams,
            do_sample=False,
            use_cache=use_cache,
            pad_token_id=self.tokenizer.pad_token_id,
            bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            streamer=_Stream(self.tokenizer, stream) if stream else None,
        )
        return self.tokenizer.batch_decode(written, skip_special_tokens=True)

    def freeze(self, network: bool) -> None:
        """Let the vocabulary network rest in training, or learn; a second branch beside it always rests."""
        self.vision.network.requires_grad_(not network)

    def _see(self, images: Tensor) -> Tensor:
        self.warned = self.warned or warned_of_range(images)
        return self.vision(images)

    def _embed(self, ids: Tensor) -> Tensor:
        return self.language_model.get_input_embeddings()(ids)

    def _ids(self, text: str, marks: bool = True) -> list[int]:
        """
        Args:
            marks: whether what looks like a special token is one; in an answer it is text.
        """
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=not marks).input_ids

    def _before(self) -> list[int]:
        """The tokens before the image, the language model's own start among them."""
        start = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        return [*start, *self._ids(around_image("")[0])]

    def _after(self, prompt: str, image_tokens: int) -> tuple[list[int], int]:
        """The tokens between the image and the answer, and how many are left for that."""
        try:
            after = self._ids(around_image(prompt)[1])
        except ValueError as error:
            raise UserError(str(error)) from error
        room = self.context - len(self._before()) - image_tokens - len(after)
        if room < 1:
            raise UserError(
                f"the prompt's {len(after)} tokens and the image's {image_tokens} leave no room for an answer in a "
                f"context of {self.context}: give a shorter prompt, smaller images or a larger vocabulary.context"
            )
        return after, room


class _Stream(TextStreamer):
    def __init__(self, tokenizer: Any, stream: Callable[[str], None]):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.stream = stream

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self.stream(text)

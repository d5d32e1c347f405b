"""A trained model at work: it is shown a picture of any size, answers a prompt about it, and its boxes are drawn."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw

from sak.bundles.bundle import find_bundle
from sak.deploy.extras import require
from sak.deploy.pictures import Picture, pixels_of
from sak.deploy.predictor import usable
from sak.errors import UserError
from sak.files import read_json
from sak.student.hub import CONFIG
from sak.vocabulary.pictures import square
from sak.vocabulary.prompts import Parsed, parse_boxes

COLOURS = (
    "#e6194b",
    "#3cb44b",
    "#4363d8",
    "#f58231",
    "#911eb4",
    "#008080",
    "#9a6324",
    "#800000",
)  # of classes, in turn
LEAST_SIDE = 480  # pixels of the shorter side of a picture with boxes; a smaller one is enlarged, for its labels


class Answer(NamedTuple):
    """
    Attributes:
        image: uint8 (H, W, 3), the picture as it is.
        boxes: what of the text can be read as boxes.
    """

    image: np.ndarray
    text: str
    boxes: Parsed


class Reader:
    """
    Args:
        bundle: a bundle of a model that reads, or a finished run of one.
        device: None: a GPU if there is one.

    Raises:
        UserError: there is none, it is corrupt or of something else, or the device cannot be used.
    """

    def __init__(self, bundle: str | os.PathLike, device: str | None = None):
        self.device = usable(device)
        if not reads(bundle):
            raise UserError(f"{bundle} holds a student, which predicts maps and reads nothing: see tools/predict.py")
        require("vocabulary", "transformers", "tokenizers")
        from sak.vocabulary.model import VocabularyModel

        self.model = VocabularyModel.from_pretrained(bundle).to(self.device).eval()

    def __call__(
        self,
        picture: Picture,
        prompt: str,
        beams: int = 1,
        max_new_tokens: int | None = None,
        stream: Callable[[str], None] | None = None,
    ) -> Answer:
        """
        Args:
            picture: resized to the square that the model was trained on, as its training images were.
            beams: 1: the likeliest token at each step.
            stream: is given each piece of the text as it comes; without beams.

        Raises:
            UserError: the picture cannot be read, or the prompt is empty or too long.
        """
        if not prompt.strip():
            raise UserError("the prompt is empty: ask something, as by --prompt 'Detect all objects in this image'")
        image = pixels_of(picture)
        if image.dtype != np.uint8:
            image = np.rint(255 * image.clip(0, 1)).astype(np.uint8)
        seen = torch.from_numpy(square(image, self.model.image_size[0]).transpose(2, 0, 1).copy()) / 255
        images = seen[None].to(self.device)
        (text,) = self.model.generate(images, [prompt], beams=beams, max_new_tokens=max_new_tokens, stream=stream)
        return Answer(image, text, parse_boxes(text))


def reads(place: str | os.PathLike) -> bool:
    """Whether a bundle or finished run there is of a model that reads.

    Raises:
        UserError: there is a directory without a bundle, or with a corrupt one.
    """
    if not Path(place).is_dir():
        raise UserError(f"{place} is no folder: give a bundle of a model that reads, or a finished run of one")
    return read_json(find_bundle(place) / CONFIG).get("kind") == "vocabulary"


def draw_boxes(answer: Answer) -> Image.Image:
    """The picture with the boxes of the answer, one colour a class, and the classes' names."""
    picture = Image.fromarray(answer.image)
    if (enlarged := LEAST_SIDE / min(picture.size)) > 1:
        size = round(picture.width * enlarged), round(picture.height * enlarged)
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    letters = _font(max(14, min(picture.size) // 32))
    line = max(2, min(picture.size) // 200)
    for number, (name, boxes) in enumerate(answer.boxes.objects.items()):
        colour = COLOURS[number % len(COLOURS)]
        for x1, y1, x2, y2 in boxes:
            corners = x1 * picture.width, y1 * picture.height, x2 * picture.width - 1, y2 * picture.height - 1
            pen.rectangle(corners, outline=colour, width=line)
            if name:
                left, top = corners[0], max(0.0, corners[1] - letters.size * 1.3)
                wide = letters.getlength(name) + 6
                left = max(0.0, min(left, picture.width - wide))
                pen.rectangle((left, top, left + wide, top + letters.size * 1.3), fill=colour)
                pen.text((left + 3, top + letters.size * 0.05), name, font=letters, fill="white")
    return picture


def _font(size: int):
    from sak.vocabulary.data.fonts import find_fonts, font

    return font(find_fonts()[0], size)

"""Ordinary OCR software on the same pages, to compare with: Debian's `tesseract`, where it is installed."""

import io
import os
import shutil
import subprocess
from collections.abc import Sequence

from PIL import Image

from sak.errors import UserError
from sak.vocabulary.data.mixture import Mixture
from sak.vocabulary.evaluate import Answer, measured

ENLARGED = 4  # it is made for letters of 20 pixels and more, and reads small ones enlarged far better
ONE_BLOCK = "6"  # its mode for a page that is one block of text


def read(image: Image.Image) -> str:
    """The text that it finds in a picture.

    Raises:
        UserError: it is not installed, or fails.
    """
    if shutil.which("tesseract") is None:
        raise UserError("tesseract is not installed: as root, apt-get install tesseract-ocr")
    picture = io.BytesIO()
    size = image.width * ENLARGED, image.height * ENLARGED
    image.resize(size, Image.Resampling.BICUBIC).save(picture, format="PNG")
    command = ["tesseract", "-", "-", "--psm", ONE_BLOCK, "--dpi", "300"]
    # One thread: many small pages are quicker so.
    environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    done = subprocess.run(command, input=picture.getvalue(), capture_output=True, env=environment)
    if done.returncode:
        raise UserError(f"tesseract fails: {done.stderr.decode(errors='replace').strip()}")
    lines = done.stdout.decode(errors="replace").splitlines()
    return "\n".join(line.strip() for line in lines if line.strip())


def evaluate(dataset: Mixture, indices: Sequence[int]) -> dict[str, float]:
    """Its metrics on the text pages among these samples, as `sak.vocabulary.evaluate` has them of a model."""
    answers = []
    for index in indices:
        sample = dataset.packed(index)
        if sample["kind"] == "text":
            text = read(Image.fromarray(sample["pixels"].permute(1, 2, 0).numpy()))
            answers.append(Answer(sample["name"], "text", sample["prompt"], sample["answer"], text))
    if not answers:
        raise UserError("there is no text page among the samples: give vocabulary.data.kinds a share of text")
    return measured(answers)

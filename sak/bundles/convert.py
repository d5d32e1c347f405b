"""From published checkpoints to bundles."""

import os
from pathlib import Path

from sak.bundles.bundle import save_bundle
from sak.bundles.official import load_official
from sak.errors import UserError
from sak.student import Student


def convert_official(
    checkpoint: str | os.PathLike,
    output: str | os.PathLike,
    dataset: str | None = None,
    image_size: tuple[int, int] | None = None,
    num_heads: int | None = None,
    keep_aligners: bool = True,
) -> Student:
    """Write the student of a published checkpoint as a bundle, and return it; arguments as of ``load_official``.

    Raises:
        UserError: the checkpoint does not fit, or `output` exists.
    """
    output = Path(output)
    if output.exists():
        raise UserError(f"{output} exists already: choose another place for the bundle, or remove it")
    student = load_official(checkpoint, image_size, dataset, num_heads)
    save_bundle(student, output, keep_aligners)
    return student

"""A stem that starts from a file, such as the supervised miniature."""

from pathlib import Path

from sak.errors import UserError
from sak.student.stem import Stem
from sak.tensors import metadata_of, read_tensors
from teachers.architecture import mismatch, noted
from teachers.checkpoints import of_network, opened
from teachers.weights import found


def load_stem(stem: Stem, path: str) -> Path:
    """Give a stem the weights of a vision transformer in timm's names, strictly.

    Args:
        path: a relative one is sought in the working directory, then beside this package, as a teacher's weights are.

    Returns:
        the file that was found.

    Raises:
        UserError: there is none, or it does not hold the weights of such a stem.
    """
    file = found(path)
    if file is None:
        raise UserError(f"student.stem_weights: there is no file {path}; correct it, or put the weights there")
    try:
        state = opened(read_tensors(file), file, noted(metadata_of(file), file))
        state = of_network(state, stem.vit.state_dict(), "", file)
    except UserError as error:
        raise UserError(f"student.stem_weights: {error}") from error
    try:
        if problem := mismatch(stem.vit, state.facts):
            raise ValueError(problem)
        stem.load_weights(state)
    except ValueError as error:
        raise UserError(
            f"student.stem_weights: {file} {error}; it is of another architecture than student.stem and stem_options"
        ) from error
    return file

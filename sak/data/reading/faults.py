"""What can be wrong with a file of a data set: whatever it is, the message names the file."""

import contextlib
from collections.abc import Iterator

from sak.errors import UserError


class FaultyFile(UserError):
    """A file of a data set that cannot be used as what it should be; the others of the set may be fine.

    Attributes:
        kind: of what is wrong, a key of `sak.preflight.summary.REMEDIES`.
    """

    def __init__(self, message: str, kind: str = "content"):
        super().__init__(message)
        self.kind = kind


class CorruptFile(FaultyFile):
    """A file that is not there, or cannot be decoded."""

    def __init__(self, message: str):
        super().__init__(message, kind="corrupt")


@contextlib.contextmanager
def naming(path: object) -> Iterator[None]:
    """Turn any failure to decode `path` into a CorruptFile that names it.

    Decoders raise what they happen to meet in corrupt bytes (OSError, SyntaxError, struct.error, zlib.error, ...),
    so no list of types would be complete.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise CorruptFile(f"{path} does not exist: restore it from the archive.") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not a decoder's
            raise CorruptFile(f"{path} cannot be read ({error.strerror}): see to the file and its disk.") from error
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".:")
        raise CorruptFile(f"{path} is corrupt and cannot be read ({reason}): restore it from the archive.") from error

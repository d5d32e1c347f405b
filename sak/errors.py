"""The one exception for mistakes that the user can mend, and how its sentence shows what it was given."""

SHOWN = 60  # characters


class UserError(ValueError):
    """A mistake in a config, a path or a file: its message is one sentence that says what, where and what to do.

    The entry points in `tools` print it without a traceback and exit with code 2. Anything else that is
    raised is a defect of the library and keeps its traceback.
    """

    def __init__(self, message: str = ""):
        super().__init__(printable(message))


def printable(text: str) -> str:
    """Text that any file and any drawing takes: names of files are bytes, and some are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def shown(value: object) -> str:
    """So much of it as a sentence has room for: what is taken for a config may be any file."""
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"

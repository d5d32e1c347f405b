"""What every entry point in `tools` shares: its command line, and how it ends.

A mistake of the user is one line and exit code 2, and so is what the operating system refuses: a full disk, a file in
the way, no permission. A training that diverged is one line and 1, Ctrl-C one line and 130. Anything else is a defect
and keeps its traceback.
"""

import argparse
import contextlib
import errno
import math
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from sak.errors import UserError
from sak.limits import MOST
from sak.processes import check_launcher, first_to_say, share_warnings

# What to do about what the operating system says of a file.
ADVICE = {
    errno.ENOENT: "see whether it is there, and spelt right",
    errno.EACCES: "see who may read and write it, or choose another place",
    errno.EPERM: "see who may read and write it, or choose another place",
    errno.EROFS: "its disk can only be read: choose another place",
    errno.ENOTDIR: "a part of its path is a file, not a folder: choose another place",
    errno.EISDIR: "it is a folder, and a file is needed: choose another place",
    errno.EEXIST: "something else is there: move it away, or choose another place",
    errno.ENOTEMPTY: "something else is there: move it away, or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links lead in a circle: mend them",
    errno.ENOSPC: "make room on its disk; the same command goes on from there",
    errno.EDQUOT: "make room within your quota; the same command goes on from there",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n), or use fewer workers",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help shows how it is called")


def tool_parser(description: str | None, example: str) -> argparse.ArgumentParser:
    """The command line of a tool; a mistake in it is a UserError.

    Args:
        example: as it is called by its path; what is shown is as it has been called.
    """
    if os.path.basename(sys.argv[0]).startswith("sak "):  # by `sak.__main__`
        example = re.sub(r"python tools/(\w+)\.py", r"sak \1", example)
        example = re.sub(r"tools/(\w+)\.py", r"-m sak \1", example)
        example = re.sub(r"\bconfigs/(\S+)\.yaml", r"\1", example)
    return _Parser(description=description, epilog=example, formatter_class=argparse.RawDescriptionHelpFormatter)


def config_parser(description: str | None, example: str) -> argparse.ArgumentParser:
    """That of a tool that is about a config: the file, and what overrides it."""
    parser = tool_parser(description, example)
    parser.add_argument("config", help="a YAML file, or the name of one that comes with sak, as sak_pascal")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that override the file's")
    return parser


def whole(least: int, most: int = MOST) -> Callable[[str], int]:
    """For an option: a whole number in a range."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,20}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} to {most}")
        return int(text)

    return parse


def positive(text: str) -> float:
    """For an option: a positive number."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no positive number")


def run(main: Callable[[list[str]], None]) -> None:
    """Call ``main`` with the command line's arguments and leave the process with the exit code that fits."""
    try:
        check_launcher()
    except UserError as error:  # before anybody is asked through the launcher's store who says it
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    try:
        share_warnings()
        main(_arguments())
    except UserError as error:
        _end(f"error: {error}", 2)
    except BrokenPipeError:  # of whoever reads what is printed, as `head`: there is nobody left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _end(f"error: {sentence(error)}", 2)
    except FloatingPointError as error:
        _end(f"error: {error}", 1)
    except KeyboardInterrupt as stop:
        # Whoever presses Ctrl-C once more, while what is still running is waited for, leaves at once.
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
        _end(str(stop) or "interrupted", 130)


def sentence(error: OSError) -> str:
    """What the operating system refused, where, and what to do."""
    if error.errno is None:  # of a library, in its own words
        return str(error)
    file = error.filename2 or error.filename
    where = f"{os.fspath(file)!s} cannot be used" if file else "a file or a connection cannot be used"
    return f"{where} ({error.strerror}): {ADVICE.get(error.errno, 'see whether its disk or network answers')}"


def _arguments() -> list[str]:
    """
    Raises:
        UserError: one holds bytes that are no text, which could not be written into any of our files.
    """
    for argument in sys.argv[1:]:
        if not argument.isascii() and re.search("[\ud800-\udfff]", argument):
            raise UserError(f"the argument {argument!a} is not UTF-8: give the file a name that is")
    return sys.argv[1:]


def _end(said: str, code: int) -> NoReturn:
    line = " ".join(said.split())
    if first_to_say(line):
        print(line, file=sys.stderr)
    sys.exit(code)

"""What every entry point in `tools` shares: its command line, and how it ends.

A mistake of the user is one line and exit code 2, and so is a full disk; a training that diverged is one line and 1,
Ctrl-C one line and 130. Anything else is a defect and keeps its traceback.
"""

import argparse
import errno
import sys
from collections.abc import Callable

from sak.errors import UserError
from sak.processes import first_to_say, share_warnings


def config_parser(description: str | None, example: str) -> argparse.ArgumentParser:
    """The command line of a tool that is about a config: the file, and what overrides it."""
    parser = argparse.ArgumentParser(
        description=description, epilog=example, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="a YAML file of configs/ or of your own")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that override the file's")
    return parser


def run(main: Callable[[list[str]], None]) -> None:
    """Call ``main`` with the command line's arguments and leave the process with the exit code that fits."""
    share_warnings()
    try:
        main(sys.argv[1:])
    except UserError as error:
        _say(f"error: {error}")
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _say(f"error: {error.strerror}: make room; the same command goes on from there")
        sys.exit(2)
    except FloatingPointError as error:
        _say(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt as stop:
        _say(str(stop) or "interrupted")
        sys.exit(130)


def _say(line: str) -> None:
    if first_to_say(line):
        print(line, file=sys.stderr)

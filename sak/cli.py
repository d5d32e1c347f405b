"""What every entry point in `tools` shares: how it ends.

A mistake of the user is one line and exit code 2, and so is a full disk; a training that diverged is one line and 1,
Ctrl-C one line and 130. Anything else is a defect and keeps its traceback.
"""

import errno
import sys
from collections.abc import Callable

from sak.errors import UserError
from sak.processes import first_to_say, share_warnings


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

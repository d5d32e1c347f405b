"""What every entry point in `tools` shares: how it ends.

A mistake of the user is one line and exit code 2, and so is a full disk; a training that diverged is one line and 1,
Ctrl-C one line and 130. Anything else is a defect and keeps its traceback.
"""

import errno
import sys
from collections.abc import Callable

from sak.errors import UserError


def run(main: Callable[[list[str]], None]) -> None:
    """Call ``main`` with the command line's arguments and leave the process with the exit code that fits."""
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: {error.strerror}: make room; the same command goes on from there", file=sys.stderr)
        sys.exit(2)
    except FloatingPointError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as stop:
        print(stop if str(stop) else "interrupted", file=sys.stderr)
        sys.exit(130)

"""What every entry point in `tools` shares: a mistake of the user is one line and exit code 2."""

import sys
from collections.abc import Callable

from .errors import UserError


def run(main: Callable[[list[str]], None]) -> None:
    """Call ``main`` with the command line's arguments and leave the process with the exit code that fits."""
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        print(stop if str(stop) else "interrupted", file=sys.stderr)
        sys.exit(130)

"""The command `sak`: every tool of `tools` as a subcommand, `sak train` for `python tools/train.py`.

A tool runs as it does by its path: with its own command line, and with its folder in place of the working directory
where modules are sought, so that nothing that lies there can take the place of a package of ours.
"""

import ast
import difflib
import re
import runpy
import sys
from pathlib import Path

import sak
from sak.cli import run, tool_parser
from sak.errors import UserError, shown
from sak.files import shipped

EXAMPLE = """example:
  sak train sak_pascal_mini
  sak train --help

A config is a YAML file, or the name of one that comes with sak. Several processes:
  torchrun --nproc_per_node 4 -m sak train CONFIG"""


def main() -> None:
    """Run the tool that the command line names first."""
    tools = {file.stem: file for file in sorted(shipped("tools").glob("*.py"))}
    if len(sys.argv) > 1 and sys.argv[1] in tools:
        file = tools[sys.argv[1]]
        sys.argv = [f"sak {file.stem}", *sys.argv[2:]]
        sys.path[0] = str(file.parent)
        run(runpy.run_path(str(file))["main"])
    else:
        run(lambda arguments: _answer(arguments, tools))


def _answer(arguments: list[str], tools: dict[str, Path]) -> None:
    """What is said where no tool is named.

    Raises:
        UserError: something else is named.
    """
    parser = tool_parser(sak.__doc__, EXAMPLE)
    parser.prog = "sak"
    parser.add_argument("--version", action="version", version=sak.__version__)
    titles = "\n".join(f"  {name:<20}{_title(file)}" for name, file in tools.items())
    parser.description = f"{str(sak.__doc__).splitlines()[0]}\n\ntools:\n{titles}"
    parser.add_argument("tool", metavar="TOOL ...")
    named = parser.parse_args(arguments or ["--help"]).tool
    nearest = difflib.get_close_matches(named, tools, n=1, cutoff=0.0)[0]
    raise UserError(f"there is no tool {shown(named)!r}, the nearest is {nearest}; sak --help lists them")


def _title(file: Path) -> str:
    """What its docstring begins with; the file is not run, as all of them together would take a while."""
    text = str(ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))))
    return re.split(r"[.:;]\s", text, maxsplit=1)[0].rstrip(".").replace("\n", " ")


if __name__ == "__main__":
    main()

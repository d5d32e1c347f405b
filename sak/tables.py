"""Tables for people, from rows of text: the header first."""

import re
from collections.abc import Sequence

Rows = Sequence[Sequence[str]]


def console(rows: Rows) -> str:
    """For a terminal: aligned columns below an underlined header; columns of numbers to the right."""
    lines = ["  ".join(cells).rstrip() for cells in _padded(rows)]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def markdown(rows: Rows) -> str:
    """In Markdown that reads well on a terminal too; columns of numbers to the right."""
    header, *body = ["| " + " | ".join(cells) + " |" for cells in _padded(rows)]
    rule = ["-" * (width + 1) + (":" if numbers else "-") for width, numbers in _form(rows)]
    return "\n".join([header, f"|{'|'.join(rule)}|", *body])


def verbatim(text: str) -> str:
    """Markdown that shows a text as it stands."""
    return f"```\n{text.rstrip()}\n```"


def _form(rows: Rows) -> list[tuple[int, bool]]:
    """(width, whether it holds numbers) of each column: all cells below the header begin as one, or are empty."""
    columns = list(zip(*rows, strict=True))
    return [
        (max(map(len, column)), all(re.match(r"[+-]?\d|[-–]?$", cell.strip("*")) for cell in column[1:]))
        for column in columns
    ]


def _padded(rows: Rows) -> list[list[str]]:
    form = _form(rows)
    return [
        [cell.rjust(width) if numbers else cell.ljust(width) for cell, (width, numbers) in zip(row, form, strict=True)]
        for row in rows
    ]
